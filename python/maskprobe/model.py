"""A GGUF model and its context, made through llama_cpp's own structs, and what the model can do.

Knows files, llama.cpp parameters and architectures; leaves generation to the session.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .binding import llama_cpp
from .errors import ModelError
from .preflight import check_model
from .rpc import RpcDevices
from .splits import split_paths

_GGUF_MAGIC = b"GGUF"
# ggml types that a KV cache can have, and the elements in a block of each: F32, F16, BF16, then Q4_0, Q4_1, Q5_0, Q5_1,
# Q8_0 and IQ4_NL.
_KV_TYPES = {0: 1, 1: 1, 30: 1, 2: 32, 3: 32, 6: 32, 7: 32, 8: 32, 20: 32}
_ERROR_LEVEL = 4  # ggml_log_level


def check_file(path: Path) -> None:
    """Raises ModelError for what can be said of a model file before llama.cpp reads it."""
    for part in split_paths(path):
        if not part.exists():
            raise ModelError(f"model file {part} does not exist; check the path")
        if not part.is_file():
            raise ModelError(f"{part} is not a file; give the path of a .gguf file")
        try:
            with part.open("rb") as file:
                magic = file.read(len(_GGUF_MAGIC))
        except OSError as error:
            raise ModelError(f"model file {part} cannot be read: {error}") from error
        if magic != _GGUF_MAGIC:
            raise ModelError(f"{part} is not a GGUF file (it begins with {magic!r}); convert the model to GGUF first")


_capture = threading.local()  # errors: lines of this thread's capture; verbose: let everything through


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _collect(level: int, text: bytes, user_data: object) -> None:
    if level == _ERROR_LEVEL and hasattr(_capture, "errors"):
        _capture.errors.append(text.decode(errors="replace").strip())
    if getattr(_capture, "verbose", False):
        print(text.decode(errors="replace"), end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def captured_log(verbose: bool) -> Iterator[list[str]]:
    """Collects llama.cpp's error lines, and lets its log through only when verbose."""
    llama_cpp._logger.set_verbose(verbose)
    _capture.errors, _capture.verbose = [], verbose
    # One callback that is never freed: loads in other threads may log through it until they are done.
    llama_cpp.llama_log_set(_collect, ctypes.c_void_p(0))
    try:
        yield _capture.errors
    finally:
        llama_cpp.llama_log_set(llama_cpp._logger.llama_log_callback, ctypes.c_void_p(0))
        del _capture.errors, _capture.verbose


def default_n_threads() -> int:
    """One thread per physical core this process may run on."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            return max(1, len(cpus) // 2)
    return len(cores)


class Model:
    """A loaded model with one context.

    Raises:
        ModelError: the file cannot be loaded, or the model does not generate text; the message has
            llama.cpp's reason.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int,
        n_batch: int,
        n_ubatch: int,
        n_threads: int,
        n_threads_batch: int,
        n_gpu_layers: int,
        rpc_servers: Sequence[str],
        split_mode: int,
        main_gpu: int,
        tensor_split: Sequence[float],
        flash_attn: bool,
        type_k: int | None,
        type_v: int | None,
        use_mmap: bool,
        use_mlock: bool,
        offload_kqv: bool,
        rope_freq_base: float,
        rope_freq_scale: float,
        lora: tuple[Path, float] | None,
        n_sequences: int,
        verbose: bool,
    ) -> None:
        check_file(path)
        self.path = path
        self.model: Any = None
        self.ctx: Any = None
        self._rpc: RpcDevices | None = None
        self._piece = ctypes.create_string_buffer(64)
        self.adapter, self.rope = lora, (rope_freq_base, rope_freq_scale)
        self._pieces: dict[tuple[int, bool], bytes] = {}  # that were asked for: text is read token by token
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.split_mode, params.main_gpu = split_mode, main_gpu
        shares = _checked_split(tensor_split)
        if shares is not None:
            params.tensor_split = shares
        params.load_mode = {
            (False, False): llama_cpp.LLAMA_LOAD_MODE_NONE,
            (True, False): llama_cpp.LLAMA_LOAD_MODE_MMAP,
            (False, True): llama_cpp.LLAMA_LOAD_MODE_MLOCK,
            (True, True): llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK,
        }[use_mmap, use_mlock]
        with captured_log(verbose) as errors:
            llama_cpp.llama_backend_init()
            check_model(path)
            if rpc_servers:
                self._rpc = RpcDevices(rpc_servers)
                params.devices = self._rpc.pointer()
            self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
            if not self.model:
                self.close()
                raise ModelError(f"llama.cpp cannot load {path}: {_reason(errors)}. Is the file complete?")
            try:
                self._check_generates()
                self.vocab = llama_cpp.llama_model_get_vocab(self.model)
                self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
                self.n_embd: int = llama_cpp.llama_model_n_embd(self.model)
                self._check_kv_types(type_k, type_v)
                context = llama_cpp.llama_context_default_params()
                context.n_ctx = n_ctx
                context.n_batch = n_batch
                context.n_ubatch = min(n_ubatch, n_batch)
                context.n_threads = n_threads
                context.n_threads_batch = n_threads_batch
                context.offload_kqv = offload_kqv
                context.rope_freq_base, context.rope_freq_scale = rope_freq_base, rope_freq_scale
                context.flash_attn_type = (
                    llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attn else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
                )
                if type_k is not None:
                    context.type_k = type_k
                if type_v is not None:
                    context.type_v = type_v
                # Branches of a block share one cache, and sliding windows keep rows that may be verified later.
                context.kv_unified = True
                # llama.cpp keeps room for the logits (and the state, in recurrent models) of every sequence, and
                # wants no more of them than outputs.
                context.n_seq_max = 1 if self.why_no_probing() else min(n_sequences, n_batch)
                context.swa_full = True
                self.ctx = llama_cpp.llama_init_from_model(self.model, context)
                if not self.ctx:
                    raise ModelError(
                        f"llama.cpp cannot make a context of n_ctx={n_ctx} for {path.name}: {_reason(errors)}. "
                        "Try a smaller n_ctx or flash_attn=False"
                    )
                if not llama_cpp.llama_get_memory(self.ctx):
                    raise ModelError(f"{path.name} has no decoder, so it cannot generate text")
                if lora is not None:
                    self._apply_lora(*lora, errors)
            except BaseException:
                self.close()
                raise

    def _apply_lora(self, path: Path, scale: float, errors: list[str]) -> None:
        check_file(path)
        # Freed with the model.
        adapter = llama_cpp.llama_adapter_lora_init(self.model, str(path).encode())
        if not adapter:
            raise ModelError(f"llama.cpp cannot use the LoRA adapter {path}: {_reason(errors)}")
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        if llama_cpp.llama_set_adapters_lora(self.ctx, adapters, 1, (ctypes.c_float * 1)(scale)):
            raise ModelError(f"llama.cpp cannot apply the LoRA adapter {path}: {_reason(errors)}")

    def close(self) -> None:
        if self.ctx:
            llama_cpp.llama_free(self.ctx)
            self.ctx = None
        if self.model:
            llama_cpp.llama_model_free(self.model)
            self.model = None
        if self._rpc:
            self._rpc.close()
            self._rpc = None

    def _check_generates(self) -> None:
        name = self.path.name
        if not llama_cpp.llama_model_has_decoder(self.model):
            raise ModelError(f"{name} has no decoder, so it cannot generate text")
        if llama_cpp.llama_model_has_encoder(self.model):
            raise ModelError(f"{name} is an encoder-decoder model; only decoders are supported")
        if llama_cpp.llama_model_is_diffusion(self.model):
            raise ModelError(f"{name} is a diffusion model; only token-by-token decoders are supported")
        if llama_cpp.llama_vocab_type(llama_cpp.llama_model_get_vocab(self.model)) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise ModelError(f"{name} has no vocabulary, so it cannot generate text")

    def _check_kv_types(self, *types: int | None) -> None:
        """Refuses KV cache types on which llama.cpp would abort."""
        architecture = self.metadata("general.architecture")
        head = self.metadata(f"{architecture}.attention.key_length")
        size = int(head) if head else self.n_embd // max(1, llama_cpp.llama_model_n_head(self.model))
        for kind in types:
            if kind is None:
                continue
            if kind not in _KV_TYPES:
                raise ValueError(f"type_k and type_v must be one of the ggml types {sorted(_KV_TYPES)}, got {kind}")
            if size % _KV_TYPES[kind]:
                raise ValueError(
                    f"a KV cache of ggml type {kind} needs heads of a multiple of {_KV_TYPES[kind]} dimensions, "
                    f"{self.path.name} has {size}; leave type_k and type_v out"
                )

    def why_no_probing(self) -> str | None:
        """Why the architecture cannot be probed, as far as its metadata tells."""
        if llama_cpp.llama_model_is_recurrent(self.model):
            return "it is recurrent, so drafts cannot branch or be taken back"
        if llama_cpp.llama_model_is_hybrid(self.model):
            return "it has recurrent layers, so drafts cannot branch or be taken back"
        rope = llama_cpp.llama_model_rope_type(self.model)
        if rope in (llama_cpp.LLAMA_ROPE_TYPE_MROPE, llama_cpp.LLAMA_ROPE_TYPE_IMROPE):
            return "it uses M-RoPE, whose embedding rows need four positions"
        if llama_cpp.llama_model_n_embd_inp(self.model) != self.n_embd:
            return "its input embeddings are wider than its token embeddings"
        return None

    def metadata(self, key: str) -> str | None:
        """A GGUF metadata value as text, None if the model lacks it."""
        buffer = ctypes.create_string_buffer(1 << 16)
        n = llama_cpp.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if n >= 0 else None

    def all_metadata(self) -> dict[str, str]:
        """All GGUF metadata as text; llama.cpp leaves arrays out."""
        buffer = ctypes.create_string_buffer(1 << 16)
        found = {}
        for i in range(llama_cpp.llama_model_meta_count(self.model)):
            texts = []
            for read in (llama_cpp.llama_model_meta_key_by_index, llama_cpp.llama_model_meta_val_str_by_index):
                n = read(self.model, i, buffer, len(buffer))
                if n >= len(buffer):
                    buffer = ctypes.create_string_buffer(n + 1)
                    read(self.model, i, buffer, len(buffer))
                texts.append(buffer.value.decode(errors="replace"))
            found[texts[0]] = texts[1]
        return found

    def chat_template(self) -> str | None:
        template = llama_cpp.llama_model_chat_template(self.model, None)
        return template.decode(errors="replace") if template else None

    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        capacity = len(text) + 8
        while True:
            buffer = (llama_cpp.llama_token * capacity)()
            n = llama_cpp.llama_tokenize(self.vocab, text, len(text), buffer, capacity, add_special, parse_special)
            if n >= 0:
                return list(buffer[:n])
            if -n <= capacity:
                raise ModelError(f"llama.cpp cannot tokenize the text of {len(text)} bytes")
            capacity = -n

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token; control tokens have none unless special."""
        known = self._pieces.get((token, special))
        if known is None:
            known = self._pieces[token, special] = self._read_piece(token, special)
        return known

    def _read_piece(self, token: int, special: bool) -> bytes:
        n = llama_cpp.llama_token_to_piece(self.vocab, token, self._piece, len(self._piece), 0, special)
        if n < 0:
            self._piece = ctypes.create_string_buffer(-n)
            return self._read_piece(token, special)
        return self._piece.raw[:n]

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        size = 16 + 8 * len(tokens)
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = llama_cpp.llama_detokenize(self.vocab, ids, len(tokens), buffer, size, False, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n


def _checked_split(shares: Sequence[float]) -> Any:
    """Shares of the model per GPU as llama.cpp wants them: one per possible device."""
    if not shares:
        return None
    most = llama_cpp.llama_max_devices()
    if len(shares) > most:
        raise ValueError(f"tensor_split has {len(shares)} shares, but llama.cpp knows at most {most} devices")
    return (ctypes.c_float * most)(*shares)


def _reason(errors: list[str]) -> str:
    return errors[-1] if errors else "no reason given (see verbose=True)"
