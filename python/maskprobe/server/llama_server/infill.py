"""Answers of completions as llama-server's, which say less and name it otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ApiError
from ..wire import event
from ..worker import Part


class CompletionForm:
    """The form of one completion.

    Args:
        model: the name that it carries.
        fields: of the whole answer that are wanted, as paths with slashes; None = all.
    """

    def __init__(self, model: str, fields: Sequence[str] | None) -> None:
        self._model = model
        self._fields = fields

    def whole(self, answers: Sequence[Part]) -> Part:
        """The completion in one piece."""
        [answer] = answers
        return self._last(answer, answer["choices"][0]["text"])

    def events(self, part: Part) -> bytes:
        """A piece of the text, or the figures at the end."""
        choice = part["choices"][0]
        if choice["finish_reason"] is None:
            return event({"index": 0, "content": choice["text"], "tokens": [], "stop": False, "id_slot": 0})
        return event(self._last(part, choice["text"]))

    def end(self) -> bytes:
        """Nothing: the last part says that it is."""
        return b""

    def failed(self, error: ApiError) -> bytes:
        """The error as the last event."""
        return event(error.body())

    def _last(self, answer: Part, text: str) -> Part:
        usage, choice = answer["usage"], answer["choices"][0]
        word = choice.get("stop_reason")
        whole = {
            "index": 0,
            "content": text,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self._model,
            "tokens_predicted": usage["completion_tokens"],
            "tokens_evaluated": usage["prompt_tokens"],
            "tokens_cached": usage["prompt_tokens_details"]["cached_tokens"],
            "truncated": False,
            "stop_type": "limit" if choice["finish_reason"] == "length" else "eos" if word is None else "word",
            "stopping_word": word or "",
            "timings": answer["timings"],
        }
        return whole if self._fields is None else _picked(whole, self._fields)


def _picked(whole: Part, paths: Sequence[str]) -> Part:
    """What the paths name, by the paths."""
    found = {}
    for path in paths:
        value: Any = whole
        for key in path.split("/"):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[path] = value
    return found
