"""MaskProbeLlama: a model that generates text, by plain decoding or with probed drafts.

Knows prompts, streams, and how one generation is run and counted. One object does one thing at a time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self, Unpack

from . import costs, state, tuned
from .binding import ffi, llama_cpp
from .chat import ChatFormats, Handler
from .compat import CompletionMethods
from .engine import Engine
from .errors import BusyError, ClosedError, ContextError, ForkError, UnsupportedModelError
from .hub import download_matching, resolve_model
from .model import Model, captured_log, default_n_threads
from .results import Chunk, Counter, FinishReason, Generation, TokenLogprobs
from .rpc import checked_servers
from .sampling import Sampling, SamplingOptions
from .speculation import Speculation, checked_flag, checked_integer, checked_number
from .text import TextStream

# Leaves of a block that every object has room for; more where its own speculation needs them. llama.cpp
# keeps one row of logits per sequence.
_SEQUENCES = 64

MAX_TOP_LOGPROBS = 100

Prompt = str | Sequence[int]


class Options(SamplingOptions, total=False):
    """Keyword arguments of generate and stream; see :meth:`MaskProbeLlama.stream`."""

    max_tokens: int | None
    stop: str | Sequence[str] | None
    logprobs: int | None
    speculate: bool | Speculation | None
    cache_prompt: bool


class MaskProbeLlama(CompletionMethods):
    """A local GGUF model. Parameters are named as in llama-cpp-python.

    One object runs one generation at a time and may move between threads; several threads have an object each.
    From asyncio, ``await asyncio.to_thread(llm.generate, prompt)`` keeps the event loop free. Forked processes load
    their own.

    Args:
        model_path: a .gguf file, or the first file of a split model.
        n_ctx: context length in tokens, 0 = what the model was trained with.
        n_batch: most prompt tokens per llama_decode call.
        n_ubatch: most rows the backend computes at once; a speculative block must fit.
        n_threads: threads of passes; None = one per physical core.
        n_threads_batch: threads of the prompt, None = n_threads.
        n_gpu_layers: layers to put on the GPU, -1 = all.
        rpc_servers: host:port of llama.cpp RPC servers that compute such layers too.
        split_mode, main_gpu, tensor_split: how several GPUs share the model.
        seed: default seed of generations; llama.cpp's default seed means a random one.
        flash_attn: use flash attention. Blocks and single rows then round alike on CPU.
        type_k, type_v: ggml types of the KV cache, None = f16.
        use_mmap, use_mlock: map the model file instead of reading it; keep it in memory.
        offload_kqv: keep the KV cache on the GPU.
        rope_freq_base, rope_freq_scale: of the rotary positions, 0 = the model's own.
        lora_path, lora_scale: a LoRA adapter in GGUF form, and how much of it is applied.
        chat_format: one of llama-cpp-python's chat formats by name, None = the model's own template.
        chat_handler: a llama-cpp-python handler of text chats, in place of a format.
        speculation: how generations draft unless they say otherwise.
        verbose: let llama.cpp's log through to stderr, and say after each generation why passes had their rows.

    Raises:
        ModelError: the file cannot be loaded, or the model does not generate text.
        RpcError: an RPC server cannot be used, or llama-cpp-python was built without RPC.
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
        n_threads_batch: int | None = None,
        n_gpu_layers: int = 0,
        rpc_servers: Sequence[str] | None = None,
        split_mode: int = llama_cpp.LLAMA_SPLIT_MODE_LAYER,
        main_gpu: int = 0,
        tensor_split: Sequence[float] | None = None,
        seed: int = llama_cpp.LLAMA_DEFAULT_SEED,
        flash_attn: bool = True,
        type_k: int | None = None,
        type_v: int | None = None,
        use_mmap: bool = True,
        use_mlock: bool = False,
        offload_kqv: bool = True,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        lora_path: str | PathLike[str] | None = None,
        lora_scale: float = 1.0,
        chat_format: str | None = None,
        chat_handler: Handler | None = None,
        speculation: Speculation | None = None,
        verbose: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = True  # until all is there
        checked_integer("n_ctx", n_ctx, 0, 2**31 - 1)
        checked_integer("n_batch", n_batch, 1, 2**31 - 1)
        checked_integer("n_ubatch", n_ubatch, 1, 2**31 - 1)
        checked_integer("n_gpu_layers", n_gpu_layers, -1, 2**31 - 1)
        self.rpc_servers = checked_servers(rpc_servers, n_gpu_layers)
        n_threads = default_n_threads() if n_threads is None else checked_integer("n_threads", n_threads, 1, 512)
        self.speculation = _checked_speculation(speculation if speculation is not None else Speculation())
        self._seed = checked_integer("seed", seed, 0, 2**32 - 1)
        model = Model(
            Path(model_path),
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            n_threads=n_threads,
            n_threads_batch=n_threads
            if n_threads_batch is None
            else checked_integer("n_threads_batch", n_threads_batch, 1, 512),
            n_gpu_layers=n_gpu_layers,
            rpc_servers=self.rpc_servers,
            split_mode=checked_integer("split_mode", split_mode, 0, 3),
            main_gpu=checked_integer("main_gpu", main_gpu, 0, 255),
            tensor_split=[checked_number("tensor_split", share, 0.0) for share in tensor_split or ()],
            flash_attn=checked_flag("flash_attn", flash_attn),
            type_k=type_k,
            type_v=type_v,
            use_mmap=checked_flag("use_mmap", use_mmap),
            use_mlock=checked_flag("use_mlock", use_mlock),
            offload_kqv=checked_flag("offload_kqv", offload_kqv),
            rope_freq_base=checked_number("rope_freq_base", rope_freq_base, 0.0),
            rope_freq_scale=checked_number("rope_freq_scale", rope_freq_scale, 0.0),
            lora=None
            if lora_path is None
            else (Path(lora_path), checked_number("lora_scale", lora_scale, -100.0, 100.0)),
            n_sequences=max(_SEQUENCES, self.speculation.leaves()),
            verbose=checked_flag("verbose", verbose),
        )
        try:
            self.metadata = model.all_metadata()
            bos, eos = (
                model.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""
                for token in (llama_cpp.llama_vocab_bos(model.vocab), llama_cpp.llama_vocab_eos(model.vocab))
            )
            self._bos = bos
            self.chat_formats = ChatFormats(model.path.name, self.metadata, bos, eos, chat_format, chat_handler)
            with captured_log(verbose):
                self._engine = Engine(model, tuned.setup_key(n_threads, n_gpu_layers, self.rpc_servers))
                if self.why_plain is None and self.speculation.plans_with_measured_costs():
                    self._engine.measured_costs()
        except BaseException:
            model.close()
            raise
        self._model = model
        self.n_gpu_layers = n_gpu_layers
        self._verbose = verbose
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

    # --- from the hub ---------------------------------------------------------------------------------

    @classmethod
    def from_hub(
        cls,
        name: str,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Loads a model by name: ``user/repo:QUANT@revision``, a name of the catalogue, or a path.

        Args:
            name, revision, local_files_only, token, cache_dir: see :func:`maskprobe.hub.resolve_model`.
            options: see the class.

        Raises:
            HubError: the repository, or the file in it, cannot be had.
        """
        path = resolve_model(
            name, revision=revision, local_files_only=local_files_only, token=token, cache_dir=cache_dir
        )
        return cls(path, **options)

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        additional_files: Sequence[str] | None = None,
        local_dir: str | PathLike[str] | None = None,
        local_dir_use_symlinks: bool | Literal["auto"] = "auto",
        cache_dir: str | PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads the model file of a repository that matches a name or glob, as llama-cpp-python does.

        Args:
            repo_id: the repository, user/repo.
            filename: the file's path in it, or a glob that matches no other GGUF file; all parts of a split file come.
            additional_files: further ones to download, each a path or glob that matches one file.
            local_dir: a folder for the files, in place of the hub's cache.
            local_dir_use_symlinks: has no effect; huggingface_hub no longer makes symlinks there.
            cache_dir: the cache's folder, None = huggingface_hub's.
            kwargs: see the class.

        Raises:
            HubError: the repository, or a file in it, cannot be had.
            ValueError: a glob matches no file or several.
        """
        return cls(
            download_matching(repo_id, filename, additional_files, local_dir=local_dir, cache_dir=cache_dir), **kwargs
        )

    # --- life -----------------------------------------------------------------------------------------

    def __enter__(self) -> MaskProbeLlama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not self._forked() and self._lock.acquire(blocking=False):
            self._free()

    def close(self) -> None:
        """Frees the model and its context; closing twice is fine, and does nothing in a fork of the process.

        Raises:
            BusyError: a generation is running.
        """
        if not self._closed and not self._forked():
            with self._entered():
                self._free()

    def _free(self) -> None:
        self._closed = True
        self._engine.close()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Holds the object for one caller."""
        self._check_process()
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

    @property
    def model_path(self) -> Path:
        """The file that was loaded."""
        return self._model.path

    def token_bos(self) -> int:
        """The token id of BOS, -1 = the model has none."""
        self._check_open()
        return int(llama_cpp.llama_vocab_bos(self._model.vocab))

    def token_eos(self) -> int:
        """The token id of EOS, -1 = the model has none."""
        self._check_open()
        return int(llama_cpp.llama_vocab_eos(self._model.vocab))

    def piece(self, token: int) -> bytes:
        """The bytes of one token, maybe half a character; control tokens have none."""
        self._check_open()
        return self._model.piece(token)

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

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The prompt, as token ids, with which the model answers the messages (role and content each).

        Raises:
            ModelError: the model carries no chat template.
            ValueError: the template refuses the messages.
        """
        self._check_open()
        text = self.chat_formats.render(messages)
        return self.tokenize(text, add_bos=not (self._bos and text.startswith(self._bos)))

    def completion_prompt(self, prompt: Prompt, suffix: str | None = None) -> list[int]:
        """The token ids that a completion of the prompt, in front of a suffix, starts from.

        Raises:
            ValueError: the model has no fill-in-the-middle tokens, or no BOS to start an empty prompt with.
        """
        self._check_open()
        vocab = self._model.vocab
        if suffix is not None:
            names = ("llama_vocab_fim_pre", "llama_vocab_fim_suf", "llama_vocab_fim_mid")
            before, behind, middle = (getattr(llama_cpp, name)(vocab) for name in names)
            if min(before, behind, middle) < 0:
                raise ValueError(f"suffix needs fill-in-the-middle tokens, which {self._model.path.name} has not")
            if not isinstance(prompt, str) or not isinstance(suffix, str):
                raise TypeError("with a suffix, prompt and suffix must be text")
            first, last = (self.tokenize(text, add_bos=False, special=False) for text in (prompt, suffix))
            return [before, *first, behind, *last, middle]
        if isinstance(prompt, str) and not prompt and self.token_bos() >= 0:
            return [self.token_bos()]
        return self._checked_prompt(prompt)

    def reset(self, *, learned: bool = False) -> None:
        """Forgets the KV cache: the next generation decodes its whole prompt.

        Args:
            learned: forget what earlier generations have taught the drafts as well.
        """
        with self._entered():
            self._engine.reset()
            if learned:
                self._engine.forget()

    def save_state(self, path: str | PathLike[str]) -> int:
        """Writes the KV cache with its tokens to a file, for :meth:`load_state` of this or another object.

        Returns the number of tokens. What drafts have learned is not part of it.

        Raises:
            StateError: there is nothing to save yet.
            OSError: the file cannot be written.
        """
        with self._entered():
            return state.save(self._engine, Path(path))

    def load_state(self, path: str | PathLike[str]) -> int:
        """Puts a saved KV cache in place of the present one: prompts that begin with its tokens reuse them.

        The model, its adapter, rope and KV cache types must be those of the object that saved it. Returns the number
        of tokens. Load no file from strangers: llama.cpp trusts the values in it.

        Raises:
            StateError: the file is missing, damaged, or does not fit; the object stays usable.
        """
        with self._entered():
            return state.load(self._engine, Path(path))

    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def _check_process(self) -> None:
        # A fork has the memory, but not llama.cpp's threads and devices.
        if self._forked():
            raise ForkError(f"this model was loaded in process {self._pid}; load it anew in each forked process")

    def _check_open(self) -> None:
        self._check_process()
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
        logprobs: list[TokenLogprobs] = []
        for chunk in self.stream(prompt, **options):
            text.append(chunk.text)
            tokens += chunk.tokens
            from_draft += [chunk.from_draft] * len(chunk.tokens)
            logprobs += [chunk.logprobs] if chunk.logprobs else []
            reason, stats = chunk.finish_reason, chunk.stats
        assert reason is not None, "a stream ends with its finish reason"
        assert stats is not None, "a stream ends with its figures"
        return Generation("".join(text), tokens, reason, stats, from_draft, logprobs)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[Chunk]:
        """Generates a completion, one chunk per committed token.

        Every token is the model's own choice for its prefix: one draw of the sampler chain per token, in
        order, whatever was drafted.

        Args:
            prompt: text (special tokens are parsed, BOS is added as the model asks) or token ids.
            max_tokens: at most so many tokens; None = until the context is full.
            stop: text that ends the generation and is not part of it.
            logprobs: report the model's own log-probability of every token, and those of so many that it ranks
                highest.
            speculate: None = the object's speculation, or plain decoding where the model cannot be probed;
                True = the object's speculation, or an error; False = plain one-row decoding; or a Speculation.
            cache_prompt: decode only what the KV cache does not hold already. The prompt then reaches
                llama.cpp in other pieces, which may round near ties differently.
            sampling: the parameters of :class:`~maskprobe.sampling.Sampling`: temperature (0 = greedy), top_k,
                top_p, penalties, logit_bias, grammar and so on; ``seed=None`` is the object's seed.

        Raises:
            ValueError, TypeError: an argument is out of range; nothing was decoded.
            ContextError: the prompt does not fit.
            UnsupportedModelError: ``speculate=True`` or a Speculation on a model that cannot be probed.
            BusyError, ClosedError: the object is in use or closed.
            DecodeError: llama.cpp failed; the object stays usable.
        """
        self._check_open()
        if sampling.get("seed") is None:
            sampling["seed"] = self._seed
        sampler = Sampling(**sampling)
        sampler.check_for(self._model.vocab)
        limit = 2**31 - 1 if max_tokens is None else checked_integer("max_tokens", max_tokens, 1, 2**31 - 1)
        if logprobs is not None:
            checked_integer("logprobs", logprobs, 0, MAX_TOP_LOGPROBS)
        checked_flag("cache_prompt", cache_prompt)
        stops = _checked_stops(stop)
        ids = self._checked_prompt(prompt)
        speculation = self._chosen_speculation(speculate)
        return self._run(ids, sampler, speculation, limit, TextStream(stops), logprobs, cache_prompt)

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
        n_top: int | None,
        cache_prompt: bool,
    ) -> Iterator[Chunk]:
        """The prompt loop. Time that the consumer spends between two chunks is not counted."""
        with self._entered(), sampling.chain(self._model.vocab) as chain:
            counter = Counter()
            clock = time.perf_counter()
            assert sampling.seed is not None, "resolved by Sampling"
            self._engine.report_logprobs(n_top)
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
                    drafted = i < n_accepted and not text.stopped
                    yield Chunk(piece, [token], drafted, logprobs=None if n_top is None else _logprobs(c_pass, i))
                    clock = time.perf_counter()
                    if text.stopped:
                        reason = "stop"
                        break
                if reason is None and n_left <= 0:
                    reason = "length"
                if reason is None:
                    self._check_process()
                    self._engine.step(c_pass)
                    counter.accepted.append(c_pass.n_accepted)
            totals = self._engine.totals()
            if speculation is not None and speculation.probe_is("auto"):
                self._engine.probe_choice().add(begun.probe, totals.n_probed, totals.probe_logp)
            if begun.curve is not None:
                counter.choice = costs.describe(begun.curve, c_pass.price)
            rest = text.finish()
            counter.predicted_ms += 1e3 * (time.perf_counter() - clock)
            stats = counter.stats(totals)
            if self._verbose:
                print(f"maskprobe: {stats}; {stats.choice or 'fixed rows'}", file=sys.stderr)
            yield Chunk(rest, finish_reason=reason, stats=stats)


def _logprobs(c_pass: Any, i: int) -> TokenLogprobs:
    """Of the pass's token i."""
    first, last = i * c_pass.n_top, (i + 1) * c_pass.n_top
    return TokenLogprobs(c_pass.logp[i], [(c_pass.top[j], c_pass.top_logp[j]) for j in range(first, last)])


def _checked_stops(stop: object) -> list[str]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop must hold non-empty strings, got {stop!r}")
    return list(stops)


def _checked_speculation(speculation: object) -> Speculation:
    if not isinstance(speculation, Speculation):
        raise TypeError(f"expected a Speculation, got {speculation!r}")
    return speculation
