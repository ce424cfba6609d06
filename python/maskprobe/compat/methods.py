"""The methods of llama_cpp.Llama that programs call, over generate and stream: same names, defaults and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..chat import formats as chat
from ..chat.answers import answer_chunks, chat_logprobs, whole_answer
from ..chat.handlers import ChatModel, stream_chat, with_messages_as_text
from ..checking import checked_flag, checked_integer
from .envelopes import Envelope, Shape, completion_logprobs, stream_completion, whole_completion

if TYPE_CHECKING:
    from ..results import Chunk
    from ..speculation import Speculation


class _Generates(Protocol):
    """What the methods below build on."""

    @property
    def model_path(self) -> Path: ...
    @property
    def chat_formats(self) -> chat.ChatFormats: ...
    def completion_prompt(self, prompt: str | Sequence[int], suffix: str | None = None) -> list[int]: ...
    @property
    def stream(self) -> Callable[..., Iterator[Chunk]]: ...
    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def piece(self) -> Callable[[int, bool], bytes]: ...
    @property
    def chat_prompt(self) -> Callable[..., list[int]]: ...
    @property
    def _complete(self) -> Callable[..., Iterator[dict[str, Any]]]: ...


class CompletionMethods:
    """create_completion, create_chat_completion and calling the object, as in llama-cpp-python.

    Answers carry llama-server's ``timings`` beside the usual keys; in a stream the last part has them and
    ``usage``. Arguments are checked by the call itself, in a stream too.
    """

    def create_completion(
        self: _Generates,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | Sequence[str] | None = (),
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: None = None,
        logits_processor: None = None,
        grammar: Any | None = None,
        logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
        *,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
    ) -> Any:
        """Completes a prompt.

        Args:
            prompt: text or token ids. Empty text starts from BOS.
            suffix: text after the completion, for models with fill-in-the-middle tokens.
            max_tokens: None or at most 0 = until the context is full.
            logprobs: report log-probabilities of tokens and of so many of the highest-ranked.
            echo: put the prompt in front of the text.
            stream: return an iterator of parts.
            model: the name that answers carry, None = the model's path.
            speculate, cache_prompt: see :meth:`MaskProbeLlama.stream`; so are all others.

        Returns:
            A ``text_completion`` dictionary, or an iterator of such parts.

        Raises:
            ValueError, TypeError: an argument is out of range or not supported; nothing was decoded.
            ContextError, BusyError, ClosedError, DecodeError, SamplingError: as :meth:`MaskProbeLlama.stream` raises
                them.
        """
        _refuse_callbacks(stopping_criteria=stopping_criteria, logits_processor=logits_processor)
        if echo and logprobs is not None:
            raise ValueError("echo with logprobs is not supported: prompt tokens have none; turn one of them off")
        checked_flag("stream", stream)
        checked_flag("echo", echo)
        ids = self.completion_prompt(prompt, suffix)
        parts = self._complete(
            ids,
            completion_logprobs,
            before="" if not echo else prompt if isinstance(prompt, str) else self.detokenize(ids),
            model=model,
            max_tokens=max_tokens,
            tfs_z=tfs_z,
            stop=stop,
            logprobs=logprobs,
            speculate=speculate,
            cache_prompt=cache_prompt,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            mirostat_mode=mirostat_mode,
            mirostat_tau=mirostat_tau,
            mirostat_eta=mirostat_eta,
            logit_bias=logit_bias,
            grammar=grammar,
            seed=seed,
        )
        return parts if stream else whole_completion(parts)

    __call__ = create_completion

    def _complete(
        self: _Generates,
        ids: list[int],
        shape: Shape,
        *,
        before: str = "",
        model: str | None,
        max_tokens: int | None,
        tfs_z: float,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """The parts of a completion, checked and begun."""
        if tfs_z != 1.0:
            raise ValueError(f"tfs_z={tfs_z} is not supported: llama.cpp has no tail-free sampling any more")
        limit = None if max_tokens is None else checked_integer("max_tokens", max_tokens, -(2**31), 2**31 - 1)
        chunks = self.stream(ids, max_tokens=limit if limit is not None and limit > 0 else None, **options)
        envelope = Envelope(model if model is not None else str(self.model_path))
        return stream_completion(chunks, envelope, len(ids), before, self.piece, shape)

    def create_chat_completion(
        self: _Generates,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: str | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | Sequence[str] | None = (),
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: None = None,
        grammar: Any | None = None,
        logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        *,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
        parse_special: bool = False,
    ) -> Any:
        """Answers messages in the model's chat format, which llama-cpp-python renders.

        Args:
            messages: dictionaries with ``role`` and ``content``, and what the model's template knows beside.
            tools, tool_choice, functions, function_call: as in llama-cpp-python; a named tool is enforced by a
                grammar of its parameters.
            response_format: ``{"type": "json_object"}``, with a JSON ``schema`` if wanted, or OpenAI's
                ``{"type": "json_schema", "json_schema": {"schema": ...}}``.
            logprobs, top_logprobs: report log-probabilities of tokens, and of so many of the highest-ranked.
            parse_special: parse control tokens that messages spell, which are text otherwise.
            stream, model, max_tokens, speculate, cache_prompt: see :meth:`create_completion`; so are all others.

        Returns:
            A ``chat.completion`` dictionary, or an iterator of ``chat.completion.chunk`` dictionaries.

        Raises:
            ValueError, TypeError: an argument is out of range, or the template refuses the messages.
            ModelError: the model has no chat template and no chat_format was named.
            ContextError, BusyError, ClosedError, DecodeError, SamplingError: as :meth:`MaskProbeLlama.stream` raises
                them.
        """
        _refuse_callbacks(logits_processor=logits_processor)
        checked_flag("stream", stream)
        asked = chat.checked_messages(messages)
        tools_of_chat = chat.Tools(
            chat.checked_tools(tools, "tools"), tool_choice, chat.checked_tools(functions, "functions"), function_call
        )
        options: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "typical_p": typical_p,
            "stop": [stop] if isinstance(stop, str) else list(stop or ()),
            "seed": seed,
            "max_tokens": max_tokens,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repeat_penalty": repeat_penalty,
            "tfs_z": tfs_z,
            "mirostat_mode": mirostat_mode,
            "mirostat_tau": mirostat_tau,
            "mirostat_eta": mirostat_eta,
            "model": model,
            "logit_bias": logit_bias,
        }
        ours = {"speculate": speculate, "cache_prompt": cache_prompt}
        handler = self.chat_formats.handler()
        if handler is not None:
            tools_of_chat.check_for_own_grammars()
            target = ChatModel(self, ours)
            if not checked_flag("parse_special", parse_special):
                handler = with_messages_as_text(handler, self)
            options |= tools_of_chat._asdict() | {
                "stream": stream,
                "grammar": chat.answer_grammar(response_format, grammar, None),
                "logprobs": logprobs,
                "top_logprobs": _n_top(logprobs, top_logprobs),
            }
            answer = handler(llama=target, messages=asked, **options)
            return stream_chat(answer, target) if stream else answer | {"timings": target.last["timings"]}

        tool = tools_of_chat.called()
        options |= ours | {
            "grammar": chat.answer_grammar(response_format, grammar, tool),
            "logprobs": _n_top(logprobs, top_logprobs),
        }
        arguments = tools_of_chat._asdict()
        formatted = chat.Formatted("", [])

        def render(messages: chat.Messages) -> str:
            nonlocal formatted
            formatted = self.chat_formats.format(messages, **arguments)
            return formatted.text

        prompt = self.chat_prompt(asked, render, parse_special=parse_special)
        options["stop"] += formatted.stop
        completion = self._complete(prompt, chat_logprobs, **options)
        name = tool["name"] if tool is not None else None
        return answer_chunks(completion, name) if stream else whole_answer(whole_completion(completion), name)


def _n_top(logprobs: bool | None, top_logprobs: int | None) -> int | None:
    return (top_logprobs or 0) if logprobs else None


def _refuse_callbacks(**callbacks: object) -> None:
    for name, value in callbacks.items():
        if value is not None:
            raise ValueError(
                f"{name} is not supported: nothing calls back into Python inside a pass; "
                "use grammar, logit_bias or stop, or llama_cpp.Llama"
            )
