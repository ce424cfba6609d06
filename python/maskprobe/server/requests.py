"""The requests: which fields there are, what they may hold, and which arguments of the model they become.

Fields and limits are OpenAI's where it has them, llama-server's otherwise. Unknown fields are ignored, null means
"not given", and the model checks what only it can know.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..generation.request import MAX_TOP_LOGPROBS

_INT = 2**31 - 1


def _random_if_negative(value: object) -> object:
    """-1, which llama-server's clients send, is a random seed."""
    return None if type(value) is int and value == -1 else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _only_one(value: int) -> int:
    if value != 1:
        raise ValueError(f"must be 1, one answer per request; got {value}")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for no limit; got 0")
    return value


def _joined(content: object) -> object:
    """Parts of text as one text."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"parts must be of the type text, with a text; got {kind!r:.80}")
    return "\n".join(part["text"] for part in content)


def _one_prompt(prompt: object) -> object:
    """The one text in a list is the prompt."""
    if isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
        if len(prompt) != 1:
            raise ValueError(f"must be one text or one list of token ids; got {len(prompt)} texts")
        return prompt[0]
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(token) is int for token in prompt)):
        raise ValueError(f"must be a text, a list with one text, or token ids; got {prompt!r:.80}")
    return prompt


Text = Annotated[str, StringConstraints(min_length=1)]


def _check_characters(data: Any) -> None:
    """JSON can write half a character, which no text holds and no answer could repeat."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the body holds half a character, {error.object[error.start]!a}") from error
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error


Limit = Annotated[int, Field(ge=-1, le=_INT), AfterValidator(_not_zero)]
One = Annotated[int, AfterValidator(_only_one)]
Stops = Annotated[list[str], BeforeValidator(_listed), Field(max_length=64)]
Seed = Annotated[Annotated[int, Field(ge=0, le=2**32 - 1)] | None, BeforeValidator(_random_if_negative)]
Content = Annotated[str | None, BeforeValidator(_joined)]
Prompt = Annotated[str | list[int], BeforeValidator(_one_prompt)]
Schema = dict[str, Any] | bool


class Strict(BaseModel):
    """JSON has types: "1" and true are no numbers."""

    model_config = ConfigDict(strict=True, extra="ignore")


class StreamOptions(Strict):
    """OpenAI's stream_options."""

    include_usage: bool | None = None


class Request(Strict):
    """What chats and completions have in common."""

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    max_tokens: Limit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_INT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    mirostat_mode: Annotated[int, Field(ge=0, le=2, validation_alias=AliasChoices("mirostat", "mirostat_mode"))] = 0
    mirostat_tau: Annotated[float, Field(ge=0)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0)] | None = None
    stop: Stops | None = None
    seed: Seed = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    grammar: str | None = None
    cache_prompt: bool | None = None
    speculate: bool | None = None
    return_drafted: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        _check_characters(data)
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's method; what was not given keeps its default."""
        server_only = {"model", "stream_options", "n", "best_of", "max_completion_tokens"}
        given = self.model_dump(by_alias=True, exclude=server_only)
        return {name: value for name, value in given.items() if value is not None}


class CompletionRequest(Request):
    """A body of /v1/completions."""

    prompt: Prompt
    suffix: str | None = None
    echo: bool | None = None
    best_of: One | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class Message(Strict):
    """A message; templates may know more keys than these."""

    model_config = ConfigDict(extra="allow")

    role: Text
    content: Content = None


class Function(Strict):
    """A function that a tool stands for."""

    model_config = ConfigDict(extra="allow")

    name: Text
    parameters: Schema = Field(default_factory=lambda: {"type": "object", "properties": {}})


class Tool(Strict):
    """A tool."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """Names a function."""

    name: Text


class ToolName(Strict):
    """Names a tool."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Strict):
    """OpenAI's named JSON schema."""

    name: str | None = None
    schema_: Schema = Field(alias="schema")


class ResponseFormat(Strict):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    schema_: Schema | None = Field(None, alias="schema")
    json_schema: JsonSchema | None = None


class ChatRequest(Request):
    """A body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    parse_special: bool | None = None
    max_completion_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolName | None = None

    @field_validator("tool_choice")
    @classmethod
    def _tool_is_there(cls, choice: str | ToolName | None, info: ValidationInfo) -> str | ToolName | None:
        tools = info.data.get("tools") or []
        if choice == "required":
            if len(tools) != 1:
                raise ValueError(f"required works with one tool; got {len(tools)}, so name the one to call")
            return ToolName(type="function", function=FunctionName(name=tools[0].function.name))
        if isinstance(choice, ToolName) and choice.function.name not in [tool.function.name for tool in tools]:
            raise ValueError(f"there is no tool {choice.function.name!r}")
        return choice

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        if self.max_completion_tokens is not None:
            arguments["max_tokens"] = self.max_completion_tokens
        if self.response_format is not None:
            arguments["response_format"] = self.response_format.model_dump(by_alias=True, exclude_unset=True)
        return arguments
