"""Bodies of /v1/responses: which fields there are, and the chats that they become."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ..requests import ChatRequest, Limit, Strict, without_nulls
from ..translation import CHAT_SAMPLING, as_request, checked_extra
from ..worker import Part
from .items import choice_of, messages_of, tools_of

# The API's fields by those of chats.
FIELDS = {
    "messages": "input",
    "prompt": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "tools": "tools",
}
# Which change nothing here; docs/server.md lists them.
_IGNORED = {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}
_IGNORED |= {"service_tier", "stream_options", "client_metadata", "max_tool_calls"}


class TextConfig(Strict):
    """What the text must look like."""

    verbosity: str | None = None  # changes nothing
    format: dict[str, Any] = Field(default_factory=lambda: {"type": "text"})


class Reasoning(Strict):
    """How much to think."""

    summary: str | None = None  # there are none; the same under its older name
    generate_summary: str | None = None
    effort: str | None = None


class ResponsesRequest(Strict):
    """A body of /v1/responses. What there may be beside are the fields by which chats say how the model draws."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    text: TextConfig = TextConfig()
    reasoning: Reasoning = Reasoning()
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: Limit | None = None
    stream: bool = False
    store: bool = True
    previous_response_id: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)
    truncation: Literal["disabled"] = "disabled"
    background: Literal[False] = False
    top_logprobs: Annotated[int, Field(ge=0, le=0)] = 0
    include: list[Literal["reasoning.encrypted_content"]] = Field(default_factory=list)  # there is none to include

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        return without_nulls(data)

    def items(self) -> list[Part]:
        """The request's own items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return self.input

    def chat(self, before: list[Part]) -> tuple[ChatRequest, list[str]]:
        """The chat that it stands for, and the types of tools that it asks for and this server has not.

        Args:
            before: items of the conversation that it goes on from.

        Raises:
            ApiError: what is wrong with it.
        """
        extra = checked_extra(self.model_extra, CHAT_SAMPLING | _IGNORED)
        tools, skipped = tools_of(self.tools)
        system = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        body = {name: value for name, value in extra.items() if name not in _IGNORED} | {
            "model": self.model,
            "messages": system + messages_of([*before, *self.items()], len(before)),
            "stream": self.stream,
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "response_format": self._response_format(),
            "reasoning_effort": self.reasoning.effort,
        }
        if tools:
            body |= {"tools": tools, "tool_choice": choice_of(self.tool_choice)}
            if not self.parallel_tool_calls:
                body["parallel_tool_calls"] = False
        return as_request(ChatRequest, body, FIELDS), skipped

    def _response_format(self) -> Part | None:
        kind = self.text.format.get("type")
        if kind == "text":
            return None
        if kind != "json_schema":
            return self.text.format
        return {"type": kind, "json_schema": {key: value for key, value in self.text.format.items() if key != "type"}}
