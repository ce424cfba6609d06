"""Models for the `llm` command and library (https://llm.datasette.io): the embedded one and those downloaded.

llm loads this at every start, and ends where it fails: so llama.cpp and what newer versions of llm alone have is looked
for when models are asked for, and llm goes on where that is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import llm

from ..errors import BindingError


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Registers models by name; called once for every use of llm."""
    try:
        from .models import found_models
    except ImportError as error:
        print(f"{_LEFT_OUT}: {error}. Mend it with: pip install -U 'maskprobe[llm]'", file=sys.stderr)
    except BindingError as error:
        print(f"{_LEFT_OUT}: {error}", file=sys.stderr)
    else:
        for model, async_model, aliases in found_models():
            register(model, async_model, aliases=aliases)


_LEFT_OUT = "maskprobe's models are left out"
