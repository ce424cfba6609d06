"""Options that commands share: a dataclass holds them, and a command takes it as one parameter.

Knows signatures; typer sees one parameter per field, with the field's annotation and default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it: the fields of its parameters that are dataclasses in their place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name in inspect.signature(command).parameters:
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            parameters += [_parameter(field.name, types[field.name], _default(field)) for field in fields(groups[name])]
        else:
            parameters.append(_parameter(name, hints[name], inspect.signature(command).parameters[name].default))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
