"""The methods of llama_cpp.Llama that programs call, over generate and stream: same names, defaults and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from ..chat.requests import PromptOptions
from ..generation.callbacks import Callback
from ..generation.request import BeforePass
from ..speculation import Speculation
from .chats import answer_messages
from .completions import complete_prompt
from .drop_in import DropIn


class CompletionMethods(DropIn):
    """create_completion, create_chat_completion and calling the object, as in llama-cpp-python.

    Answers carry llama-server's ``timings`` beside the usual keys; in a stream the last part has them and
    ``usage``. A choice that a stop string ended says which in ``stop_reason``. Arguments are checked by the call
    itself, in a stream too.
    """

    def create_completion(
        self,
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
        stopping_criteria: Callback | Sequence[Callback] | None = None,
        logits_processor: Callback | Sequence[Callback] | None = None,
        grammar: Any | None = None,
        logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
        *,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
        before_pass: BeforePass | None = None,
        return_drafted: bool = False,
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
            return_drafted: add ``drafted`` to the choice, one flag per token: whether it was drafted and accepted.
            speculate, cache_prompt, before_pass: see :meth:`MaskProbeLlama.stream`; so are all others.

        Returns:
            A ``text_completion`` dictionary, or an iterator of such parts.

        Raises:
            ValueError, TypeError: an argument is out of range or not supported; nothing was decoded.
            ContextError, BusyError, ClosedError, DecodeError, SamplingError: as :meth:`MaskProbeLlama.stream` does.
        """
        arguments = locals()  # all of them by name
        return complete_prompt(self, arguments)

    __call__ = create_completion

    def create_chat_completion(
        self,
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
        logits_processor: Callback | Sequence[Callback] | None = None,
        grammar: Any | None = None,
        logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        *,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
        before_pass: BeforePass | None = None,
        return_drafted: bool = False,
        parse_special: bool = False,
        parallel_tool_calls: bool | None = None,
        reasoning_format: str = "auto",
        **prompt: Unpack[PromptOptions],
    ) -> Any:
        """Answers messages in the model's chat format.

        Args:
            messages: in OpenAI's form, calls and their results too. A last message of the assistant's is continued.
            tools, tool_choice, functions, function_call: what may be called, or must, see docs/structured-output.md.
            parallel_tool_calls: False = at most one call. reasoning_format: "none" = reasoning stays in the content.
            response_format: ``{"type": "json_object"}``, with a JSON ``schema`` if wanted, or OpenAI's ``json_schema``.
            logprobs, top_logprobs: report log-probabilities of tokens, and of so many of the highest-ranked.
            parse_special, prompt: chat_template_kwargs, reasoning_effort and so on, see :meth:`apply_chat_template`.
            stream, model, max_tokens, return_drafted: see :meth:`create_completion`; so are all others.

        Returns:
            A ``chat.completion`` dictionary, or an iterator of ``chat.completion.chunk`` dictionaries.

        Raises:
            ValueError, TypeError, ModelError: an argument is out of range, or no template takes the messages.
            ContextError, BusyError, ClosedError, DecodeError, SamplingError: as :meth:`MaskProbeLlama.stream` does.
        """
        arguments = locals()  # all of them by name
        return answer_messages(self, arguments)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """:meth:`create_chat_completion` with the types of the openai package.

        Returns:
            A ``ChatCompletion``, or an iterator of ``ChatCompletionChunk``.

        Raises:
            ImportError: the package is not installed.
            Exception: as :meth:`create_chat_completion` does.
        """
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk
        except ImportError as error:
            raise ImportError(f'create_chat_completion_openai_v1 needs: pip install "openai>=1" ({error})') from error
        answer = self.create_chat_completion(*args, **kwargs)
        if isinstance(answer, dict):
            return ChatCompletion(**answer)
        return (ChatCompletionChunk(**chunk) for chunk in answer)
