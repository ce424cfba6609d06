"""MaskProbeLlama: a model that generates text, by plain decoding or with probed drafts.

Knows prompts, streams, and how one generation is run and counted. One object does one thing at a time.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from typing_extensions import Unpack

from . import costs, tuned
from .binding import ffi, llama_cpp
from .engine import Engine
from .errors import BusyError, ClosedError, ContextError, ModelError, UnsupportedModelError
from .model import Model, captured_log, default_n_threads
from .results import Chunk, Counter, FinishReason, Generation
from .sampling import Sampling
from .speculation import Speculation, checked_integer
from .text import TextStream

# Leaves of a block that every object has room for; more where its own speculation needs them. llama.cpp
# keeps one row of logits per sequence.
_SEQUENCES = 64

Prompt = str | Sequence[int]


class Options(TypedDict, total=False):
    """Keyword arguments of generate and stream; see :meth:`MaskProbeLlama.stream`."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_last_n: int
    seed: int | None
    stop: str | Sequence[str]
    speculate: bool | Speculation | None
    cache_prompt: bool


class MaskProbeLlama:
    """A local GGUF model. Parameters are named as in llama-cpp-python.

    Args:
        model_path: a .gguf file, or the first file of a split model.
        n_ctx: context length in tokens, 0 = what the model was trained with.
        n_batch: most prompt tokens per llama_decode call.
        n_ubatch: most rows the backend computes at once; a speculative block must fit.
        n_threads: threads for all decoding; None = one per physical core.
        n_gpu_layers: layers to put on the GPU, -1 = all.
        seed: default seed of generations; llama.cpp's default seed means a random one.
        flash_attn: use flash attention. Blocks and single rows then round alike on CPU.
        type_k, type_v: ggml types of the KV cache, None = f16.
        use_mmap: map the model file instead of reading it.
        speculation: how generations draft unless they say otherwise.
        verbose: let llama.cpp's log through to stderr.

    Raises:
        ModelError: the file cannot be loaded, or the model does not generate text.
        ValueError, TypeError: an argument is out of range.

    Warns:
        RuntimeWarning: once, when the model cannot be probed; it then decodes plainly.
    """

    def __init__(
        self,
        model_path: str | PathLike[str],
        *,
        n_ctx: int = 4096,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        seed: int = llama_cpp.LLAMA_DEFAULT_SEED,
        flash_attn: bool = True,
        type_k: int | None = None,
        type_v: int | None = None,
        use_mmap: bool = True,
        speculation: Speculation | None = None,
        verbose: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self._closed = True  # until all is there
        checked_integer("n_ctx", n_ctx, 0, 2**31 - 1)
        checked_integer("n_batch", n_batch, 1, 2**31 - 1)
        checked_integer("n_ubatch", n_ubatch, 1, 2**31 - 1)
        checked_integer("n_gpu_layers", n_gpu_layers, -1, 2**31 - 1)
        n_threads = default_n_threads() if n_threads is None else checked_integer("n_threads", n_threads, 1, 512)
        self.speculation = _checked_speculation(speculation if speculation is not None else Speculation())
        self._seed = Sampling(seed=seed).seed
        model = Model(
            Path(model_path),
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=n_gpu_layers,
            flash_attn=flash_attn,
            type_k=type_k,
            type_v=type_v,
            use_mmap=use_mmap,
            n_sequences=max(_SEQUENCES, self.speculation.leaves()),
            verbose=verbose,
        )
        try:
            with captured_log(verbose):
                self._engine = Engine(model, tuned.setup_key(n_threads, n_gpu_layers))
                if self.why_plain is None and self.speculation.plans_with_measured_costs():
                    self._engine.measured_costs()
        except BaseException:
            model.close()
            raise
        self._model = model
        self._closed = False
        if self.why_plain is not None:
            warnings.warn(f"{model.path.name} is decoded plainly: {self.why_plain}", RuntimeWarning, stacklevel=2)

    @property
    def engine(self) -> Engine:
        """The model's session and what is known of it; for tools that find out more."""
        self._check_open()
        return self._engine

    @property
    def why_plain(self) -> str | None:
        """Why the model cannot be probed and is decoded plainly, None if it can."""
        return self._engine.why_plain

    # --- life -----------------------------------------------------------------------------------------

    def __enter__(self) -> MaskProbeLlama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._lock.acquire(blocking=False):
            self._free()

    def close(self) -> None:
        """Frees the model and its context; closing twice is fine.

        Raises:
            BusyError: a generation is running.
        """
        if not self._closed:
            with self._entered():
                self._free()

    def _free(self) -> None:
        self._closed = True
        self._engine.close()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Holds the object for one caller."""
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "this model is already generating; finish or close() that stream first, or use one object per thread"
            )
        try:
            if self._closed:
                raise ClosedError("this model was closed; load it again")
            yield
        finally:
            self._lock.release()

    # --- tokens ---------------------------------------------------------------------------------------

    def n_ctx(self) -> int:
        """Context length in tokens."""
        self._check_open()
        return int(llama_cpp.llama_n_ctx(self._model.ctx))

    def n_threads(self) -> int:
        """Threads of all decoding."""
        self._check_open()
        return int(llama_cpp.llama_n_threads(self._model.ctx))

    def n_vocab(self) -> int:
        """Vocabulary size in tokens."""
        self._check_open()
        return self._model.n_vocab

    def description(self) -> str:
        """Architecture, size and quantization in words, e.g. "llama ?B Q4_0"."""
        self._check_open()
        return self._model.description()

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text. add_bos: add BOS and the like where the model asks; special: parse special tokens."""
        self._check_open()
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self._model.tokenize(data, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of token ids. special: show special tokens as text."""
        self._check_open()
        return self._model.detokenize(self._checked_ids(tokens), special).decode("utf-8", "replace")

    def has_chat_template(self) -> bool:
        """Whether the model carries a chat template."""
        self._check_open()
        return self._model.chat_template() is not None

    def apply_chat_template(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The prompt, as token ids, with which the model answers the messages (role and content each).

        Raises:
            ModelError: the model carries no chat template.
        """
        self._check_open()
        template = self._model.chat_template()
        if template is None:
            raise ModelError(f"{self._model.path.name} has no chat template; give the prompt as text")
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        bos, eos = (
            self._model.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""
            for token in (llama_cpp.llama_vocab_bos(self._model.vocab), llama_cpp.llama_vocab_eos(self._model.vocab))
        )
        text = Jinja2ChatFormatter(template, eos_token=eos, bos_token=bos)(messages=list(messages)).prompt
        return self.tokenize(text, add_bos=not (bos and text.startswith(bos)))

    def reset(self, *, learned: bool = False) -> None:
        """Forgets the KV cache: the next generation decodes its whole prompt.

        Args:
            learned: forget what earlier generations have taught the drafts as well.
        """
        with self._entered():
            self._engine.reset()
            if learned:
                self._engine.forget()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model was closed; load it again")

    def _checked_ids(self, tokens: Sequence[int]) -> list[int]:
        return [checked_integer("token id", token, 0, self._model.n_vocab - 1) for token in tokens]

    def _checked_prompt(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError("the prompt is bytes; decode it to str, or pass token ids")
        ids = self.tokenize(prompt) if isinstance(prompt, str) else self._checked_ids(prompt)
        if not ids:
            raise ValueError("the prompt is empty; give at least one token")
        n_ctx = self.n_ctx()
        if len(ids) >= n_ctx:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, but n_ctx={n_ctx} must also hold the answer; "
                "shorten it or load the model with a larger n_ctx"
            )
        return ids

    # --- generation -----------------------------------------------------------------------------------

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation:
        """Generates a completion. Takes what :meth:`stream` takes, and raises what it raises."""
        text: list[str] = []
        tokens: list[int] = []
        from_draft: list[bool] = []
        for chunk in self.stream(prompt, **options):
            text.append(chunk.text)
            tokens += chunk.tokens
            from_draft += [chunk.from_draft] * len(chunk.tokens)
            reason, stats = chunk.finish_reason, chunk.stats
        assert reason is not None, "a stream ends with its finish reason"
        assert stats is not None, "a stream ends with its figures"
        return Generation("".join(text), tokens, reason, stats, from_draft)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 256,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
    ) -> Iterator[Chunk]:
        """Generates a completion, one chunk per committed token.

        Every token is the model's own choice for its prefix: one draw of the sampler chain per token, in
        order, whatever was drafted.

        Args:
            prompt: text (special tokens are parsed, BOS is added as the model asks) or token ids.
            max_tokens: at most so many tokens; None = until the context is full.
            temperature, top_k, top_p, min_p, typical_p: sampling, temperature 0 = greedy.
            repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n: over the last generated tokens.
            seed: of the sampler, None = the object's.
            stop: text that ends the generation and is not part of it.
            speculate: None = the object's speculation, or plain decoding where the model cannot be probed;
                True = the object's speculation, or an error; False = plain one-row decoding; or a Speculation.
            cache_prompt: decode only what the KV cache does not hold already. The prompt then reaches
                llama.cpp in other pieces, which may round near ties differently.

        Raises:
            ValueError, TypeError: an argument is out of range; nothing was decoded.
            ContextError: the prompt does not fit.
            UnsupportedModelError: ``speculate=True`` or a Speculation on a model that cannot be probed.
            BusyError, ClosedError: the object is in use or closed.
            DecodeError: llama.cpp failed; the object stays usable.
        """
        self._check_open()
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            penalty_last_n=penalty_last_n,
            seed=self._seed if seed is None else seed,
        )
        limit = 2**31 - 1 if max_tokens is None else checked_integer("max_tokens", max_tokens, 1, 2**31 - 1)
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not all(isinstance(s, str) and s for s in stops):
            raise ValueError(f"stop must hold non-empty strings, got {stop!r}")
        ids = self._checked_prompt(prompt)
        speculation = self._chosen_speculation(speculate)
        return self._run(ids, sampling, speculation, limit, TextStream(stops), cache_prompt)

    def _chosen_speculation(self, speculate: bool | Speculation | None) -> Speculation | None:
        """The speculation of one generation, None for plain decoding."""
        if speculate is False or (speculate is None and self.why_plain is not None):
            return None
        speculation = self.speculation if speculate is None or speculate is True else _checked_speculation(speculate)
        if self.why_plain is not None:
            raise UnsupportedModelError(f"{self._model.path.name} cannot be probed: {self.why_plain}")
        n_ubatch = llama_cpp.llama_n_ubatch(self._model.ctx)
        if speculation.rows() > n_ubatch and speculation.budget != "auto":
            raise ValueError(
                f"a block of {speculation.rows()} rows does not fit n_ubatch={n_ubatch}; "
                "use a smaller block or load the model with larger n_batch and n_ubatch"
            )
        n_seq_max = llama_cpp.llama_n_seq_max(self._model.ctx)
        if speculation.leaves() > n_seq_max:
            raise ValueError(
                f"a block of {speculation.rows()} rows with masks={speculation.masks} has up to "
                f"{speculation.leaves()} leaves, but this context has {n_seq_max} sequences; "
                "load the model with that speculation"
            )
        return speculation

    def _run(
        self,
        prompt: list[int],
        sampling: Sampling,
        speculation: Speculation | None,
        max_tokens: int,
        text: TextStream,
        cache_prompt: bool,
    ) -> Iterator[Chunk]:
        """The prompt loop. Time that the consumer spends between two chunks is not counted."""
        with self._entered(), sampling.chain(self._model.n_vocab) as chain:
            counter = Counter()
            clock = time.perf_counter()
            begun = self._engine.begin(
                prompt, chain, speculation, max_tokens, seed=sampling.seed, cache_prompt=cache_prompt
            )
            counter.prompt_n, counter.cache_n = len(prompt) - begun.n_reused, begun.n_reused
            counter.probe = begun.probe
            c_pass = ffi.new("mp_pass *")
            while c_pass.n_tokens == 0:
                self._engine.prefill(c_pass)
            now = time.perf_counter()
            counter.prompt_ms = 1e3 * (now - clock)
            clock = now

            n_left = min(max_tokens, self.n_ctx() - len(prompt))
            reason: FinishReason | None = None
            while reason is None:
                n_left -= c_pass.n_tokens
                n_accepted = c_pass.n_accepted
                for i, token in enumerate(ffi.unpack(c_pass.tokens, c_pass.n_tokens)):
                    counter.predicted_n += 1
                    if c_pass.end and i == c_pass.n_tokens - 1:
                        reason = "stop"
                        break
                    piece = text.push(self._model.piece(token))
                    counter.predicted_ms += 1e3 * (time.perf_counter() - clock)
                    if text.stopped and i < n_accepted:
                        counter.accepted[-1] = i  # the pass's last token is its own choice, what follows is not used
                    yield Chunk(piece, [token], from_draft=i < n_accepted and not text.stopped)
                    clock = time.perf_counter()
                    if text.stopped:
                        reason = "stop"
                        break
                if reason is None and n_left <= 0:
                    reason = "length"
                if reason is None:
                    self._engine.step(c_pass)
                    counter.accepted.append(c_pass.n_accepted)
                    counter.rows += c_pass.n_rows
                    counter.rows_again += c_pass.n_again
                    counter.draft_n += c_pass.n_drafted
                    counter.decode_ms += c_pass.decode_ms
                    counter.kv_scans += c_pass.n_kv_scans
                    counter.expected_n += c_pass.expected
                    counter.probe_n += c_pass.n_probed
                    counter.probe_logp += c_pass.probe_logp
            if speculation is not None and speculation.probe_is("auto"):
                self._engine.probe_choice().add(begun.probe, counter.probe_n, counter.probe_logp)
            if begun.curve is not None:
                counter.choice = costs.describe(begun.curve, c_pass.price)
                counter.reliability = self._engine.reliability()
            rest = text.finish()
            counter.predicted_ms += 1e3 * (time.perf_counter() - clock)
            yield Chunk(rest, finish_reason=reason, stats=counter.stats())


def _checked_speculation(speculation: object) -> Speculation:
    if not isinstance(speculation, Speculation):
        raise TypeError(f"expected a Speculation, got {speculation!r}")
    return speculation
