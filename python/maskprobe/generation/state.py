"""The KV cache in a file, so that a text goes on in another process without decoding it again.

A file is a NumPy archive of the tokens, llama.cpp's own state of the sequence that holds them, and what the model and
the settings were; its checksums tell damage. Knows nothing of prompts and locks.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import StateError
from ..llamacpp.installed import llama_cpp
from ..llamacpp.logs import captured_log, reason
from ..llamacpp.model import Model
from ..splits import split_paths
from .engine import Engine

_SEQUENCE = 0  # in every committed cell, see native/src/kv_cache.h
_SAMPLE_BYTES = 1 << 20


def save(engine: Engine, path: Path) -> int:
    """Writes what the KV cache holds. Returns the number of tokens.

    Raises:
        StateError: there is nothing to save, or llama.cpp cannot save it.
        OSError: the file cannot be written.
    """
    _check_one_seat(engine)
    tokens = engine.session.cached()
    if not tokens:
        raise StateError("the KV cache is empty; generate something before save_state")
    ctx = engine.model.ctx
    state = np.empty(llama_cpp.llama_state_seq_get_size(ctx, _SEQUENCE), np.uint8)
    if llama_cpp.llama_state_seq_get_data(ctx, _bytes_of(state), state.size, _SEQUENCE) != state.size or not state.size:
        raise StateError(f"llama.cpp cannot save the state of {engine.model.path.name}")
    # Beside its place and moved there: what was there before stays if this fails.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, tokens=np.array(tokens, np.int32), state=state, setup=np.array(_setup(engine.model)))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return len(tokens)


def load(engine: Engine, path: Path) -> int:
    """Puts what a file holds in place of what the KV cache held. Returns the number of tokens.

    Raises:
        StateError: the file does not fit; the KV cache is as before, or empty if llama.cpp refused it.
    """
    _check_one_seat(engine)
    tokens, state = _read(path, engine.model)
    engine.reset()
    ctx = engine.model.ctx
    try:
        with captured_log(verbose=False) as errors:
            if not llama_cpp.llama_state_seq_set_data(ctx, _bytes_of(state), state.size, _SEQUENCE):
                raise StateError(f"the state in {path} does not fit this context: {reason(errors)}")
        last = llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(ctx), _SEQUENCE)
        if last + 1 != len(tokens):
            raise StateError(f"the state in {path} holds {last + 1} positions for {len(tokens)} tokens")
        engine.session.restore(tokens)
    except BaseException:
        engine.reset()
        raise
    return len(tokens)


def _check_one_seat(engine: Engine) -> None:
    if len(engine.seats.all) > 1:
        raise StateError("a state is of one text: load the model with n_parallel=1 to save or load it")


def _read(path: Path, model: Model) -> tuple[list[int], npt.NDArray[np.uint8]]:
    try:
        with path.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        tokens, state, setup = arrays["tokens"], arrays["state"], str(arrays["setup"])
    except OSError as error:
        raise StateError(f"the state in {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever zipfile and numpy make of a damaged archive
        raise StateError(f"{path} is not a file that save_state wrote, or it is damaged") from error
    if setup != _setup(model):
        raise StateError(
            f"the state in {path} is of another model than {model.path.name}, of one with another adapter or rope, "
            f"or in another format than that of llama-cpp-python {llama_cpp.__version__}"
        )
    if tokens.dtype != np.int32 or tokens.ndim != 1 or state.dtype != np.uint8 or state.ndim != 1:
        raise StateError(f"{path} is not a file that save_state wrote, or it is damaged")
    n_ctx = llama_cpp.llama_n_ctx(model.ctx)
    if len(tokens) > n_ctx:
        raise StateError(f"the state in {path} has {len(tokens)} tokens, but n_ctx={n_ctx}; load the model with more")
    if not ((tokens >= 0) & (tokens < model.n_vocab)).all():
        raise StateError(f"the state in {path} has tokens that {model.path.name} does not know")
    return tokens.tolist(), np.ascontiguousarray(state)


def _setup(model: Model) -> str:
    """Names what the values in a KV cache depend on, wherever the files lie; llama.cpp checks types and sizes.

    Its own format is named too: llama.cpp writes the version into files alone, not into the states that it hands out.
    """
    options = model.options
    lora, vector = options.lora, options.control_vector
    adapter = None if lora is None else (_fingerprint(lora.path), float(lora.scale))
    ropes = (options.rope_freq_base, options.rope_freq_scale)
    parts: list[object] = [llama_cpp.LLAMA_STATE_SEQ_VERSION, _fingerprint(model.path), adapter, ropes]
    if vector is not None:
        parts.append((_fingerprint(vector.path), float(vector.scale), vector.layers and tuple(vector.layers)))
    return repr(tuple(parts))


def _fingerprint(path: Path) -> str:
    """A digest of a model's size, header and last weights: reading all of it would take longer than decoding."""
    digest = hashlib.sha256()
    for part in split_paths(path):
        size = part.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with part.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _bytes_of(state: npt.NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
