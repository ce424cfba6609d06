"""Bodies of llama-server's own endpoints."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ..requests import CompletionRequest, Limit, Strict, without_nulls
from ..translation import SAMPLING, as_request, checked_extra

_TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
# Which change nothing here; docs/server.md lists them.
_IGNORED = {"n_indent", "samplers", "t_max_prompt_ms", "t_max_predict_ms", "id_slot", "penalize_nl", "repeat_last_n"}
# The endpoint's fields by those of completions, where they differ.
FIELDS = {"max_tokens": "n_predict"}


class TokenizeRequest(Strict):
    """A body of /tokenize; content may mix texts and token ids."""

    content: str | list[str | _TokenId]
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        return without_nulls(data)


class DetokenizeRequest(Strict):
    """A body of /detokenize."""

    tokens: list[_TokenId]


class ExtraInput(Strict):
    """Another file, or a piece of it."""

    text: str
    filename: str = "tmp"


class InfillRequest(Strict):
    """A body of /infill. What there may be beside are the fields by which completions say how the model draws."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraInput] = Field(default_factory=list)
    prompt: str = ""
    n_predict: Limit = -1
    stream: bool = False
    response_fields: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        return without_nulls(data)

    def completion(self, ids: list[int]) -> CompletionRequest:
        """The completion of a prompt that it stands for.

        Raises:
            ApiError: what is wrong with it.
        """
        extra = checked_extra(self.model_extra, SAMPLING | _IGNORED)
        body = {name: value for name, value in extra.items() if name not in _IGNORED}
        body |= {"prompt": ids, "stream": self.stream, "max_tokens": self.n_predict}
        return as_request(CompletionRequest, body, FIELDS)
