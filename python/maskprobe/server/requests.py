"""The requests: which fields there are, what they may hold, and which arguments of the model they become.

Fields and limits are OpenAI's where it has them, llama-server's otherwise. What is not supported is refused by its
name, unless it changes no answer; null means "not given", and the model checks what only it can know.
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
from ..grammars.grammar import Grammar

_INT = 2**31 - 1

# Clients send these whoever answers, and no answer depends on them here; docs/server.md lists them.
IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "prediction"),
    # Of samplers that are off, see below.
    *("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
    *("xtc_threshold", "dynatemp_exponent", "adaptive_decay"),
)
# Values that ask for nothing, of fields that are not supported otherwise.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "dynatemp_range": (0,),
    "top_n_sigma": (-1,),
    "adaptive_target": (-1,),
    "repeat_last_n": (64,),
    "min_keep": (0,),
    "n_keep": (0,),
    "n_probs": (0,),
    "n_indent": (0,),
    "t_max_predict_ms": (0, -1),
    "id_slot": (-1,),
    "lora": ([],),
    "samplers": ([],),
    "ignore_eos": (False,),
    "return_tokens": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
    "post_sampling_probs": (False,),
    "reasoning_format": ("auto", "deepseek"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
}


def _random_if_negative(value: object) -> object:
    """-1, which llama-server's clients send, is a random seed."""
    return None if type(value) is int and value == -1 else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


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


def _prompts(prompt: object) -> object:
    """One prompt or several, each a text or token ids, as a list of prompts."""
    listed = prompt if isinstance(prompt, list) and not _is_tokens(prompt) else [prompt]
    for one in listed:
        if not isinstance(one, str) and not _is_tokens(one):
            raise ValueError(f"must be a text, token ids, or a list of such prompts; got {one!r:.80}")
    if not listed:
        raise ValueError("is empty; give at least one prompt")
    return listed


def _is_tokens(prompt: object) -> bool:
    return isinstance(prompt, list) and len(prompt) > 0 and all(type(token) is int for token in prompt)


Text = Annotated[str, StringConstraints(min_length=1)]


def _asks(name: str, value: object) -> bool:
    """Whether a field asks for anything."""
    return value is not None and name not in IGNORED and value not in NEUTRAL.get(name, ())


def _check_characters(data: Any) -> None:
    """JSON can write half a character, which no text holds, and Python reads numbers that no answer could repeat."""
    try:
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the body holds half a character, {error.object[error.start]!a}") from error
    except ValueError as error:
        raise ValueError("the body holds a number that is none, or has no end") from error
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error


def without_nulls(data: Any) -> Any:
    """A body without fields that are null, which are not given."""
    _check_characters(data)
    return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


Limit = Annotated[int, Field(ge=-1, le=_INT), AfterValidator(_not_zero)]
Count = Annotated[int, Field(ge=1, le=128)]
Stops = Annotated[list[str], BeforeValidator(_listed), Field(max_length=64)]
Seed = Annotated[Annotated[int, Field(ge=0, le=2**32 - 1)] | None, BeforeValidator(_random_if_negative)]
Content = Annotated[str | None, BeforeValidator(_joined)]
Prompts = Annotated[list[str | list[int]], BeforeValidator(_prompts), Field(max_length=2048)]
Schema = dict[str, Any] | bool


class Strict(BaseModel):
    """JSON has types: "1" and true are no numbers."""

    model_config = ConfigDict(strict=True, extra="forbid")


class StreamOptions(Strict):
    """OpenAI's stream_options."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


# What no method of the model takes, or each choice for itself.
_SERVER_ONLY = {"model", "stream", "stream_options", "n", "seed", "prompt", "best_of", "max_completion_tokens"}
_SERVER_ONLY |= {"json_schema"}


class Request(Strict):
    """What chats and completions have in common."""

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Count = 1
    max_tokens: Annotated[Limit | None, Field(validation_alias=AliasChoices("max_tokens", "n_predict"))] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_INT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None, Field(validation_alias=AliasChoices("typical_p", "typ_p"))
    ] = None
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
    json_schema: Schema | None = None
    cache_prompt: bool | None = None
    speculate: bool | None = None
    return_drafted: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _asked_for(cls, data: Any) -> Any:
        data = without_nulls(data)
        return {key: value for key, value in data.items() if _asks(key, value)} if isinstance(data, dict) else data

    @field_validator("json_schema")
    @classmethod
    def _can_be_enforced(cls, schema: Schema | None, info: ValidationInfo) -> Schema | None:
        if schema is not None:
            if info.data.get("grammar") is not None:
                raise ValueError("excludes grammar; give one of them")
            Grammar.from_schema(schema)
        return schema

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's method; what was not given keeps its default."""
        given = self.model_dump(by_alias=True, exclude=_SERVER_ONLY)
        return {name: value for name, value in given.items() if value is not None}


class CompletionRequest(Request):
    """A body of /v1/completions."""

    prompt: Prompts
    suffix: str | None = None
    echo: bool | None = None
    best_of: Count | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @field_validator("best_of")
    @classmethod
    def _all_are_kept(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        if best_of is not None and best_of != info.data.get("n", 1):
            raise ValueError(f"must be n, as no choice is left out; got {best_of}")
        return best_of

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        if self.json_schema is not None:
            arguments["grammar"] = Grammar.from_schema(self.json_schema)
        return arguments


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


class AllowedTools(Strict):
    """Some of the tools, of which any may be called or one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolName], Field(min_length=1)]


class ToolChoice(Strict):
    """OpenAI's choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class JsonSchema(Strict):
    """OpenAI's named JSON schema."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
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
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Text | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    max_completion_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolName | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_format: Literal["auto", "none"] | None = None

    @field_validator("response_format")
    @classmethod
    def _no_other_schema(cls, format: ResponseFormat | None, info: ValidationInfo) -> ResponseFormat | None:
        if format is not None and info.data.get("json_schema") is not None:
            raise ValueError("excludes json_schema; give one of them")
        return format

    @field_validator("tool_choice")
    @classmethod
    def _tools_are_there(
        cls, choice: str | ToolName | ToolChoice | None, info: ValidationInfo
    ) -> str | ToolName | ToolChoice | None:
        tools = [tool.function.name for tool in info.data.get("tools") or []]
        if choice == "required" and not tools:
            raise ValueError("required needs tools; got none")
        chosen = choice.allowed_tools.tools if isinstance(choice, ToolChoice) else [choice]
        for tool in chosen:
            if isinstance(tool, ToolName) and tool.function.name not in tools:
                raise ValueError(f"there is no tool {tool.function.name!r}")
        return choice

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        if self.max_completion_tokens is not None:
            arguments["max_tokens"] = self.max_completion_tokens
        if self.json_schema is not None:
            arguments["response_format"] = {"type": "json_schema", "json_schema": {"schema": self.json_schema}}
        elif self.response_format is not None:
            arguments["response_format"] = self.response_format.model_dump(by_alias=True, exclude_unset=True)
        return arguments
