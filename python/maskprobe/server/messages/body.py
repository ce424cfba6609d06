"""Bodies of /v1/messages: which fields there are, and the chats that they become."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ..requests import ChatRequest, Limit, Stops, Strict, without_nulls
from ..translation import CHAT_SAMPLING, as_request, checked_extra
from ..worker import Part
from .blocks import chat_choice, chat_messages, chat_tools, text_of

# The API's fields by those of chats, where they differ.
FIELDS = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
}
# Which change nothing here; docs/server.md lists them.
_IGNORED = {"metadata", "service_tier", "cache_control", "context_management", "inference_geo", "diagnostics", "speed"}


class Thinking(Strict):
    """Whether to think first."""

    budget_tokens: int | None = None  # changes nothing; nor does how thoughts are shown
    display: str | None = None
    type: Literal["enabled", "disabled", "adaptive"]


class OutputConfig(Strict):
    """How much to think, and what the answer must look like."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class MessagesRequest(Strict):
    """A body of /v1/messages. What there may be beside are the fields by which chats say how the model draws."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_tokens: Limit
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: Stops | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    stream: bool = False

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        return without_nulls(data)

    def chat(self) -> tuple[ChatRequest, list[str]]:
        """The chat that it stands for, and the types of tools that it asks for and this server has not.

        Raises:
            ApiError: what is wrong with it.
        """
        extra = checked_extra(self.model_extra, CHAT_SAMPLING | _IGNORED)
        tools, skipped = chat_tools(self.tools)
        system = [] if self.system is None else [{"role": "system", "content": text_of(self.system, "system")}]
        body = {name: value for name, value in extra.items() if name not in _IGNORED} | {
            "model": self.model,
            "messages": system + chat_messages(self.messages),
            "stream": self.stream,
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "temperature": self.temperature,
            "response_format": self._response_format(),
            "reasoning_effort": self.output_config.effort,
        }
        if self.thinking is not None and self.thinking.type != "adaptive":
            given = body.get("chat_template_kwargs", {})
            if isinstance(given, dict):  # anything else is refused below
                body["chat_template_kwargs"] = {"enable_thinking": self.thinking.type == "enabled"} | given
        if tools:
            choice = self.tool_choice or {"type": "auto"}
            body |= {"tools": tools, "tool_choice": chat_choice(choice)}
            if choice.get("disable_parallel_tool_use"):
                body["parallel_tool_calls"] = False
        return as_request(ChatRequest, body, FIELDS), skipped

    def _response_format(self) -> Part | None:
        wanted = self.output_config.format
        if wanted is None or wanted.get("type") != "json_schema":
            return wanted
        return {"type": "json_schema", "json_schema": {"schema": wanted.get("schema")}}


class CountRequest(MessagesRequest):
    """A body of /v1/messages/count_tokens."""

    max_tokens: Limit = 1
