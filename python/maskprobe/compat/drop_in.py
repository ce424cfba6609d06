"""What libraries that take a llama_cpp.Llama look at besides its answers, and what to do where it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..llamacpp.installed import llama_cpp
from ..loaded import LoadedModel

_DECODING = "generate and stream decode; logits_processor= is given the logits of every token"
_EMBEDDINGS = "embeddings are made by llama_cpp.Llama(embedding=True)"
_OPTIONS = "engine.model.options holds what the model was loaded with"
_TOKENS = "engine.session.cached() gives the tokens in the KV cache"

# Public names of llama_cpp.Llama that are not there, and what is in their place.
INSTEAD = {
    "cache": "the KV cache is reused by prefix; save_state keeps it",
    "chat_format": "chat_format= of the constructor chooses one",
    "chat_handler": "chat_handler= of the constructor sets one",
    "create_embedding": _EMBEDDINGS,
    "ctx": "engine.model.ctx is the llama_context, which must be left as it is",
    "draft_model": "speculation says what is drafted",
    "embed": _EMBEDDINGS,
    "eval": _DECODING,
    "eval_logits": _DECODING,
    "eval_tokens": _TOKENS,
    "input_ids": _TOKENS,
    "kv_overrides": "a model's metadata is used as it is",
    "last_n_tokens_size": "generate and stream take penalty_last_n",
    "logits_to_logprobs": "llama_cpp.Llama.logits_to_logprobs needs no object",
    "longest_token_prefix": "llama_cpp.Llama.longest_token_prefix needs no object",
    "lora_base": _OPTIONS,
    "lora_path": _OPTIONS,
    "lora_scale": _OPTIONS,
    "n_batch": "context_params.n_batch is it",
    "n_threads_batch": "context_params.n_threads_batch is it",
    "n_tokens": _TOKENS,
    "numa": "numactl places a program",
    "pooling_type": _EMBEDDINGS,
    "sample": _DECODING,
    "scores": _DECODING,
    "set_cache": "the KV cache is reused by prefix; save_state keeps it",
    "spm_infill": "a suffix stands behind the prefix, where the model's own tokens mark them",
    "tensor_split": _OPTIONS,
}


class Tokenizer:
    """A model's tokenizer with the methods of llama_cpp.LlamaTokenizer: detokenize gives bytes."""

    def __init__(self, llm: LoadedModel) -> None:
        self._llm = llm

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        return self._llm.tokenize(text, add_bos, special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        prompts = self._llm.prompts
        return prompts.model.vocab.detokenize(prompts.checked_ids(tokens), special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        return self.tokenize(text.encode("utf-8", "ignore"), add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.detokenize(tokens).decode("utf-8", "ignore")


class DropIn(LoadedModel):
    """Attributes of llama_cpp.Llama; :data:`INSTEAD` names those that are not there."""

    if not TYPE_CHECKING:  # or every name would be one

        def __getattr__(self, name: str) -> NoReturn:
            why = f": {INSTEAD[name]}" if name in INSTEAD else ""
            raise AttributeError(f"{type(self).__name__} has no {name!r}{why}", name=name, obj=self)

    @property
    def model(self) -> Any:
        """The llama_model, for llama.cpp's functions that only read it."""
        return self.engine.model.model

    @property
    def model_params(self) -> Any:
        """llama.cpp's parameters that the model was loaded with, a copy."""
        return self.engine.model.options.model_params()

    @property
    def context_params(self) -> Any:
        """llama.cpp's parameters of the context as it is, a copy."""
        model = self.engine.model
        params = model.options.context_params(model.n_seq_max(), n_snapshots=model.snapshots.n)
        params.n_ctx, params.n_ubatch = model.n_ctx(), model.n_ubatch()
        return params

    @property
    def verbose(self) -> bool:
        """Whether llama.cpp's log is let through."""
        return self.engine.model.options.verbose

    def n_embd(self) -> int:
        """Values of an embedding."""
        return self.engine.model.n_embd

    def token_nl(self) -> int:
        """The token id of a line break, -1 = the model has none."""
        return int(llama_cpp.llama_vocab_nl(self.engine.model.vocab.handle))

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, as an object."""
        return Tokenizer(self)

    @property
    def tokenizer_(self) -> Tokenizer:
        """The same, as llama_cpp.Llama keeps it."""
        return Tokenizer(self)
