"""How many snapshots of a recurrent state a context keeps, so that drafts can be taken back without decoding again.

llama.cpp keeps one for each of the last rows of a decode, in architectures that can; each is as large as the state.
With them plain passes take longer too, as the state is written twice (docs/lab/hybrids.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .devices import describe, devices, local_gpus
from .installed import llama_cpp
from .options import LoadOptions

_MOST = 16  # drafts of a chain that is still likely to come true as a whole
_FEWEST = 2  # below, a copy of the state does better
_SMALL = 2**20  # bytes of a state whose snapshots cost next to nothing; of larger ones
_MOST_OF_LARGE = 8
_LARGEST = 1 / 64  # of the weights, which a pass reads: above, snapshots would make plain passes slower by some percent
_PROBE_CELLS = 256


class Snapshots(NamedTuple):
    """So many of each text, and the bytes of each; none where llama.cpp has none for the model, or there is no room."""

    n: int
    bytes_each: int
    n_texts: int = 1  # that have states of their own, so that they can be generated side by side


def choose(model: Any, options: LoadOptions) -> Snapshots:
    """As many snapshots as pay, and as the share of memory in the options has room for.

    Those of all texts that may be generated at once, if that leaves any; else of one.
    """
    if options.snapshot_memory == 0:
        return Snapshots(0, 0)
    size = _state_bytes(model, options)
    if size == 0 or size > max(_SMALL, _LARGEST * llama_cpp.llama_model_size(model)):
        return Snapshots(0, 0)
    most = min(_MOST if size <= _SMALL else _MOST_OF_LARGE, min(options.n_ubatch, options.n_batch) - 2)
    room = options.snapshot_memory * _memory_bytes(options) / size
    # A cell that a sliding window has left behind would be taken for a free one.
    n_side_by_side = 1 if llama_cpp.llama_model_n_swa(model) else options.n_parallel
    for n_texts in (n_side_by_side, 1):
        if (n := min(most, int(room / n_texts))) >= _FEWEST:
            return Snapshots(n, size, n_texts)
    return Snapshots(0, size)


def _memory_bytes(options: LoadOptions) -> int:
    """Bytes of the memory that states lie in: the smallest GPU's that takes layers, else the machine's."""
    gpus = [describe(handle).total_bytes for handle in local_gpus()] if options.n_gpu_layers != 0 else []
    return min(gpus) if gpus else max(device.total_bytes for device in devices())


def _state_bytes(model: Any, options: LoadOptions) -> int:
    """Bytes of the state of one sequence, by a small context that decodes a token; 0 = llama.cpp takes no snapshots."""
    params = options.context_params(1, n_snapshots=1)
    params.n_ctx = params.n_batch = params.n_ubatch = _PROBE_CELLS
    ctx = llama_cpp.llama_init_from_model(model, params)
    if not ctx:
        return 0
    try:
        token = (llama_cpp.llama_token * 1)(0)
        if not llama_cpp.llama_n_rs_seq(ctx) or llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(token, 1)):
            return 0
        return int(llama_cpp.llama_state_seq_get_size_ext(ctx, 0, llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY))
    finally:
        llama_cpp.llama_free(ctx)
