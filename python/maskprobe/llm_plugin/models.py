"""What llm calls models: which there are, and how they answer.

Knows llm's classes; leaves names of models to hub, and chats to MaskProbeLlama. Nothing is loaded before the first
prompt, and one model stays loaded in a process.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import llm
from llm.parts import Message, ReasoningPart, StreamEvent, TextPart, ToolCallPart, ToolResultPart
from pydantic import Field, field_validator

from ..hub import CachedModel, cached_models, catalog, resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation

PREFIX = "maskprobe/"
_MACHINE = ("n_ctx", "n_threads", "n_gpu_layers", "cpu_kernels")  # options of a loaded model, not of an answer


def found_models() -> Iterator[tuple[MaskProbe, AsyncMaskProbe, Sequence[str]]]:
    """The embedded model and those in the hub's cache, each in both kinds and with its aliases."""
    yield MaskProbe("smollm2"), AsyncMaskProbe("smollm2"), ()
    here = {(entry.repo, entry.quant): entry.name for entry in catalog.entries() if entry.repo is not None}
    for name, model in {model.name: model for model in _cached_models()}.items():
        short = here.get((model.repo, model.quant or "")) if model.revision == "main" else None
        yield MaskProbe(name), AsyncMaskProbe(name), (PREFIX + short,) if short else ()


def _cached_models() -> list[CachedModel]:
    """What the hub's cache has; a cache that cannot be read must not keep llm from its other models."""
    try:
        return cached_models()
    except OSError:
        return []


class _Shared:
    """What both kinds of model are."""

    can_stream = True
    supports_schema = True
    supports_tools = True

    def __init__(self, name: str) -> None:
        self.model_id = PREFIX + name
        self._name = name

    def __str__(self) -> str:
        return f"maskprobe: {self.model_id}"


class MaskProbe(_Shared, llm.Model):
    """A model by a name that `maskprobe --model` takes."""

    class Options(llm.Options):
        """What `llm -o NAME VALUE` takes; what is left out is as in llama-cpp-python."""

        max_tokens: int | None = Field(default=None, description="At most so many tokens")
        temperature: float | None = Field(default=None, description="0 = greedy")
        top_k: int | None = Field(default=None, description="Choose among so many tokens; 0 = all")
        top_p: float | None = Field(default=None, description="Choose among the tokens that make up this probability")
        min_p: float | None = Field(default=None, description="Least probability relative to the best token's")
        typical_p: float | None = Field(default=None, description="Locally typical sampling; 1 = off")
        repeat_penalty: float | None = Field(default=None, description="Above 1: less repetition")
        frequency_penalty: float | None = Field(default=None, description="By how often a token has come; 0 = off")
        presence_penalty: float | None = Field(default=None, description="For tokens that have come; 0 = off")
        seed: int | None = Field(default=None, description="Seed of the sampler")
        stop: str | list[str] | None = Field(default=None, description="Text that ends the answer")
        speculate: bool | str | None = Field(
            default=None, description='false = plain decoding, or settings such as "budget=10"'
        )
        think: bool | None = Field(default=None, description="Think first or not, if its chat template knows")
        n_ctx: int | None = Field(default=None, description="Context length in tokens, 4096 if left out")
        n_threads: int | None = Field(default=None, description="Threads; one per physical core if left out")
        n_gpu_layers: int | None = Field(default=None, description="Layers on the GPU, -1 = all")
        cpu_kernels: bool | None = Field(default=None, description="false = llama.cpp's own CPU kernels alone")

        @field_validator("speculate")
        @classmethod
        def _readable(cls, value: bool | str | None) -> bool | str | None:
            if isinstance(value, str):
                if value.lower() in ("true", "false"):
                    return value.lower() == "true"
                parse_speculation(value)
            return value

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str | StreamEvent]:
        """Answers a prompt with what was said before it."""
        return _answer(self._name, prompt, response)


class AsyncMaskProbe(_Shared, llm.AsyncModel):
    """The same for asyncio. Prompts take turns."""

    Options = MaskProbe.Options  # type: ignore[assignment]

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> AsyncGenerator[str | StreamEvent, None]:
        """As :meth:`MaskProbe.execute`, in a thread."""
        events = _answer(self._name, prompt, response)
        thread = ThreadPoolExecutor(1, "maskprobe")
        run = asyncio.get_running_loop().run_in_executor
        try:
            await run(thread, _turn.acquire)
            while (event := await run(thread, next, events, None)) is not None:
                yield event
        finally:  # behind what the thread may still be at
            thread.submit(events.close)
            thread.submit(_turn.release)
            thread.shutdown(wait=False)


_turn = threading.Lock()  # of asynchronous prompts


def _answer(name: str, prompt: llm.Prompt, response: Any) -> Generator[str | StreamEvent, None, None]:
    """The events of an answer; its figures and calls of tools go to the response."""
    options = prompt.options.model_dump(exclude_none=True)
    machine = {name: options.pop(name) for name in _MACHINE if name in options}
    if isinstance(options.get("speculate"), str):
        options["speculate"] = parse_speculation(options["speculate"])
    if (think := options.pop("think", None)) is not None:
        options["chat_template_kwargs"] = {"enable_thinking": think}
    if prompt.schema:
        options["response_format"] = {"type": "json_object", "schema": prompt.schema}
    if prompt.tools:
        options["tools"] = [_tool(tool) for tool in prompt.tools]
    model = _load(name, machine)
    calls: dict[int, dict[str, str]] = {}
    # llm joins the pieces itself where it does not stream.
    with closing(model.create_chat_completion(_messages(prompt), stream=True, **options)) as parts:
        for part in parts:
            yield from _events(part["choices"][0]["delta"], calls)
    for call in calls.values():
        _add_call(response, call)
    timings = part["timings"]
    response.set_usage(
        input=part["usage"]["prompt_tokens"],
        output=part["usage"]["completion_tokens"],
        details={"cached_tokens": timings["cache_n"]} if timings["cache_n"] else None,
    )
    response.response_json = {"finish_reason": part["choices"][0]["finish_reason"], "timings": timings}


def _tool(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _events(delta: Mapping[str, Any], calls: dict[int, dict[str, str]]) -> Iterator[str | StreamEvent]:
    """What a piece of an answer is to llm. Calls are put together by their index."""
    if reasoning := delta.get("reasoning_content"):
        yield StreamEvent(type="reasoning", chunk=reasoning)
    if text := delta.get("content"):
        yield text
    for piece in delta.get("tool_calls") or ():
        function = piece["function"]
        if piece["index"] not in calls:
            call = calls[piece["index"]] = {"id": piece["id"], "name": function["name"], "arguments": ""}
            yield StreamEvent(type="tool_call_name", chunk=call["name"], tool_call_id=call["id"])
        call = calls[piece["index"]]
        if arguments := function.get("arguments"):
            call["arguments"] += arguments
            yield StreamEvent(type="tool_call_args", chunk=arguments, tool_call_id=call["id"])


def _add_call(response: Any, call: Mapping[str, str]) -> None:
    """Has llm make the call, unless max_tokens has cut it; its text is in the response's parts then too."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        return
    response.add_tool_call(llm.ToolCall(name=call["name"], arguments=arguments, tool_call_id=call["id"]))


_loaded: tuple[Any, MaskProbeLlama] | None = None


def _load(name: str, machine: dict[str, Any]) -> MaskProbeLlama:
    """The model, loaded; another one that was is closed first."""
    global _loaded
    # Registered models are in the cache already: no network.
    key = (resolve_model(name, local_files_only=True), tuple(sorted(machine.items())))
    if _loaded is None or _loaded[0] != key:
        if _loaded is not None:
            _loaded[1].close()
            _loaded = None
        _loaded = (key, MaskProbeLlama(key[0], **machine))
    return _loaded[1]


def _messages(prompt: llm.Prompt) -> list[dict[str, Any]]:
    """The conversation as chat templates take it. A system message of this prompt replaces an earlier one."""
    messages = [message for said in prompt.messages for message in _said(said)]
    if prompt.system:
        messages = [m for m in messages if m["role"] != "system"]
        messages.insert(0, {"role": "system", "content": prompt.system})
    return messages


def _said(message: Message) -> Iterator[dict[str, Any]]:
    """A message of llm's, or one for each result that it holds."""
    texts: dict[type, str] = {TextPart: "", ReasoningPart: ""}
    calls, results = [], []
    for part in message.parts:
        if isinstance(part, (TextPart, ReasoningPart)):
            texts[type(part)] += part.text
        elif isinstance(part, ToolCallPart):
            function = {"name": part.name, "arguments": json.dumps(part.arguments)}
            calls.append({"id": part.tool_call_id, "type": "function", "function": function})
        elif isinstance(part, ToolResultPart) and not part.attachments:
            results.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": part.output})
        else:
            raise ValueError("maskprobe's models take text alone: this conversation has an attachment")
    yield from results
    if not results or texts[TextPart] or calls:
        said: dict[str, Any] = {"role": message.role, "content": texts[TextPart]}
        said |= {"reasoning_content": texts[ReasoningPart]} if texts[ReasoningPart] else {}
        yield said | ({"tool_calls": calls} if calls else {})
