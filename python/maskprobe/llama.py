"""MaskProbeLlama: a model that generates text, by plain decoding or with probed drafts.

Knows what users may ask for; loading, prompts, the life of the object and the generation itself have modules of their
own.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Self, Unpack

from . import cpu_kernels as kernels_of_process
from .chat.control_tokens import ControlTokens
from .chat.formats import ChatFormats
from .chat.handlers import Handler
from .chat.prompts import Prompt
from .checking import checked_flag, checked_seed
from .compat.arguments import check_foreign
from .compat.methods import CompletionMethods
from .core.pool import PoolSizes
from .drafting.setup import setup_name
from .generation.engine import Engine
from .generation.lifetime import Lifetime
from .generation.request import (
    BeforePass,
    Options,
    Request,
    checked_before_pass,
    checked_max_tokens,
    checked_n_top,
    checked_special,
    checked_stops,
)
from .generation.run import run
from .generation.sampling import Sampling, SamplingOptions
from .hub import download_matching, resolve_model
from .llamacpp.installed import llama_cpp
from .llamacpp.logs import captured_log
from .llamacpp.model import Model
from .llamacpp.options import LoadOptions
from .many import ManyMethods
from .results import Chunk, Generation
from .speculation import Speculation

# Leaves of a block that every object has room for; more where its own speculation needs them. llama.cpp
# keeps one row of logits per sequence.
_SEQUENCES = 64


class MaskProbeLlama(CompletionMethods, ManyMethods):
    """A local GGUF model. Parameters are named as in llama-cpp-python.

    One object runs n_parallel generations at a time and may move between threads. From asyncio, ``astream`` and
    ``agenerate`` keep the event loop free. Forked processes load their own.

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
        seed: default seed of generations; llama.cpp's default seed, and -1, mean a random one.
        flash_attn: use flash attention. Blocks and single rows then round alike on CPU.
        type_k, type_v: ggml types of the KV cache, None = f16.
        use_mmap, use_mlock: map the model file instead of reading it; keep it in memory.
        offload_kqv: keep the KV cache on the GPU.
        rope_freq_base, rope_freq_scale: of the rotary positions, 0 = the model's own.
        lora_path, lora_scale: a LoRA adapter in GGUF form, and how much of it is applied.
        control_vector, control_vector_scale: a control vector in GGUF form, and how much of it is added.
        control_vector_layer_range: the first and the last layer that it is added to, None = all.
        chat_format: one of llama-cpp-python's chat formats by name, None = the model's own template.
        chat_template: the text of a Jinja template, in place of the model's own.
        chat_handler: a llama-cpp-python handler of text chats, in place of a format.
        snapshot_memory: most of the memory, as a share of it, that snapshots of a recurrent state may take; drafts on
            models that have one are taken back by them.
        cpu_kernels: let passes of a few rows on the CPU take maskprobe's own kernels where they fit, see
            docs/kernels.md; False = llama.cpp's alone.
        n_parallel: so many generations may run at once, from threads or tasks, and share passes, see docs/parallel.md;
            1 to 16. They have n_ctx cells together.
        cache_ram: MiB of memory for texts that have to leave these cells and may be gone on from, n_parallel > 1 only;
            0 = none are kept, None = a tenth of the memory that the model leaves, 8 GiB at most.
        queue: further ones wait for their turn instead of raising BusyError.
        speculation: how generations draft unless they say otherwise.
        verbose: let llama.cpp's log through to stderr, and say after each generation why passes had their rows.
        foreign: further arguments of llama_cpp.Llama, with values that change nothing here.

    Raises:
        ModelError: the file cannot be loaded, or the model does not generate text.
        RpcError: an RPC server cannot be used, or llama-cpp-python was built without RPC.
        BindingError: llama-cpp-python is newer than the tested ones, and the model is decoded wrongly with it.
        ValueError, TypeError: an argument is out of range.

    Warns:
        RuntimeWarning: once, when nothing can be drafted; the model is then decoded plainly. Once per process, when
            llama-cpp-python is newer than the tested ones.
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
        control_vector: str | PathLike[str] | None = None,
        control_vector_scale: float = 1.0,
        control_vector_layer_range: tuple[int, int] | None = None,
        chat_format: str | None = None,
        chat_template: str | None = None,
        chat_handler: Handler | None = None,
        snapshot_memory: float = 0.02,
        cpu_kernels: bool = True,
        n_parallel: int = 1,
        cache_ram: float | None = None,
        queue: bool = False,
        speculation: Speculation | None = None,
        verbose: bool = False,
        **foreign: Any,
    ) -> None:
        check_foreign(foreign)
        options = LoadOptions.of_arguments(locals())
        self.speculation = Speculation() if speculation is None else _checked_speculation(speculation)
        self.set_seed(seed)
        instructions = _prepare_kernels(options)
        lanes = PoolSizes.choose(options, self.speculation.leaves())
        model = Model(Path(model_path), options, _n_sequences(lanes, self.speculation))
        try:
            self.metadata = model.all_metadata()
            bos, eos = (model.vocab.special_text(token) for token in (model.vocab.bos, model.vocab.eos))
            self.chat_formats = ChatFormats(
                model.path.name, self.metadata, bos, eos, chat_format, chat_handler, chat_template
            )
            self.control_tokens = ControlTokens(model.vocab)
            engine = self._open(model, instructions, lanes)
        except BaseException:
            model.close()
            raise
        self._lifetime = Lifetime(engine, options.n_parallel, queue=options.queue)
        _warn_of(engine)

    def _open(self, model: Model, instructions: str, lanes: PoolSizes | None) -> Engine:
        """The engine of a model whose passes take our kernels for these instructions, if any."""
        options = model.options
        setup = setup_name(options, instructions)
        with captured_log(options.verbose):
            engine = Engine(model, setup, cpu_kernels=bool(instructions), lanes=lanes)
            if engine.drafting.shape != "none":
                engine.knowledge.prepare(self.speculation, for_all=len(engine.seats.all) > 1)
        return engine

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

    # --- generation -----------------------------------------------------------------------------------

    def set_seed(self, seed: int) -> None:
        """Sets the default seed of generations: 0..2^32-1, or -1 = a random one each time.

        Raises:
            ValueError, TypeError: it is none of these.
        """
        self._seed = checked_seed(seed)

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation:
        """Generates a completion. Takes what :meth:`stream` takes, and raises what it raises."""
        return Generation.of_chunks(self.stream(prompt, **options))

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] | None = None,
        special: bool | Collection[int] = False,
        logprobs: int | None = None,
        speculate: bool | Speculation | None = None,
        cache_prompt: bool = True,
        before_pass: BeforePass | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[Chunk, None, None]:
        """Generates a completion, one chunk per committed token.

        Every token is the model's own choice: one draw of the sampler chain each, in order, whatever was drafted.

        Args:
            prompt: text (special tokens are parsed, BOS is added as the model asks) or token ids.
            max_tokens: at most so many tokens, 1 or more; None = until the context is full.
            stop: text that ends the generation and is not part of it; empty text is none.
            special: control tokens, all or these, that have text where the model writes them; the end never has.
            logprobs: report the model's own log-probability (natural logarithm) of every token, and those of so many,
                0..100, that it ranks highest.
            speculate: None = the object's speculation, or plain decoding where nothing can be drafted;
                True = the object's speculation, or an error; False = plain one-row decoding; or a Speculation.
            cache_prompt: decode only what the KV cache does not hold already. The prompt then reaches
                llama.cpp in other pieces, which may round near ties differently.
            before_pass: called before every llama_decode; what it raises ends the generation, the object stays usable.
            sampling: see :class:`~maskprobe.generation.sampling.Sampling`: temperature (0 = greedy), top_k, top_p,
                penalties, logit_bias, grammar, logits_processor and so on; ``seed=None`` is the object's seed.

        Raises:
            ValueError, TypeError: an argument is out of range; nothing was decoded.
            ContextError: the prompt does not fit.
            UnsupportedModelError: ``speculate=True`` or a Speculation on a model that takes no such drafts.
            BusyError, ClosedError, ForkError: the object is in use, is closed, or belongs to the process that this one
                was forked from. These, a ContextError and the following come with the first chunk that is asked for.
            DecodeError, MemoryError: llama.cpp failed, or there is no memory; the object stays usable.
            SamplingError: a grammar or logit_bias leaves no token to choose from; the object stays usable.
        """
        vocab, ids = self.engine.model.vocab, self.prompts.checked(prompt)
        if sampling.get("seed") is None:
            sampling["seed"] = self._seed
        sampler = Sampling(**sampling)
        assert sampler.seed is not None, "resolved by Sampling"
        return self._run(
            Request(
                chain=sampler.chain(vocab, ids),
                seed=sampler.seed,
                max_tokens=checked_max_tokens(max_tokens),
                n_top=checked_n_top(logprobs),
                cache_prompt=checked_flag("cache_prompt", cache_prompt),
                before_pass=checked_before_pass(before_pass),
                stop=checked_stops(stop),
                special=checked_special(special, vocab.n_tokens),
                prompt=ids,
                speculation=self._chosen_speculation(speculate),
            )
        )

    def _chosen_speculation(self, speculate: bool | Speculation | None) -> Speculation | None:
        """The speculation of one generation, None for plain decoding."""
        if speculate is False or (speculate is None and self.drafting.shape == "none"):
            return None
        chosen = self.speculation if speculate is None or speculate is True else _checked_speculation(speculate)
        self.engine.check_fits(chosen)
        return chosen

    def _run(self, request: Request) -> Generator[Chunk, None, None]:
        with self._lifetime.sit(request.prompt) as (engine, seat), closing(run(engine, seat, request)) as chunks:
            for chunk in chunks:
                if engine.model.options.verbose and chunk.stats is not None:
                    print(f"maskprobe: {chunk.stats}; {chunk.stats.choice or 'fixed rows'}", file=sys.stderr)
                yield chunk
                self._lifetime.check_process()  # who goes on may be a fork


def _prepare_kernels(options: LoadOptions) -> str:
    """The instructions that our kernels are used with, empty where llama.cpp's alone are."""
    if not options.cpu_kernels:
        return ""
    with captured_log(options.verbose):  # backends tell what they have found
        kernels = kernels_of_process.prepare()
    if options.verbose:
        print(f"CPU kernels: {kernels}", file=sys.stderr)
    return kernels.instructions if kernels.active else ""


def _warn_of(engine: Engine) -> None:
    """Says what the user of the constructor should know."""
    if engine.drafting.shape == "none":
        warnings.warn(f"{engine.model.path.name} is decoded plainly: {engine.drafting.why_none}", RuntimeWarning, 3)
    if engine.note is not None:
        warnings.warn(engine.note, RuntimeWarning, stacklevel=3)


def _n_sequences(lanes: PoolSizes | None, speculation: Speculation) -> int:
    """How many a context needs for these lanes, or for one generation at a time."""
    return max(_SEQUENCES if lanes is None else lanes.n_sequences(), speculation.leaves())


def _checked_speculation(speculation: object) -> Speculation:
    if not isinstance(speculation, Speculation):
        raise TypeError(f"expected a Speculation, got {speculation!r}")
    return speculation
