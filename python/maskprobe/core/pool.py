"""Lanes of the core: sessions that share the cells of one context, and whose rows share passes.

Fills the C ABI's structs and reads them; who steps when, and that no two calls for one pool are made at once, is its
users' affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import ModelError
from ..llamacpp.installed import address_of
from ..llamacpp.options import LoadOptions
from .binding import check, error_of, ffi, lib
from .embeddings import Embeddings
from .session import Pass, Session

_MOST_SEQUENCES = 256  # of a context of llama.cpp
# On the CPU a row is computed as if it were alone: up to so many rows,
_ROWS = 63
# and with several threads if it has another beside it where attention is split among them, from so many cells on.
_PAD_FROM = 256
_PIECE = 16  # rows that our kernels take; llama.cpp's own are as fast a row with these as with 63


@dataclass(frozen=True)
class PoolSizes:
    """How many lanes share passes of which size, an mp_pool_sizes."""

    n_lanes: int
    n_ids: int  # sequences of each lane, most leaves of its blocks
    rows: int  # most rows of a pass
    piece: int  # rows that a pass with pieces of prompts should have
    pad_from: int  # a pass of one row gets one beside it when so many cells are in use, 0 = never
    parked_bytes: int = 0  # of texts that have to leave the cells, in memory
    has_states: bool = False  # recurrent ones, one a lane

    @staticmethod
    def choose(options: LoadOptions, n_leaves: int) -> PoolSizes | None:
        """What fits options, None if one text is to be generated at a time.

        Args:
            options: of the context.
            n_leaves: most leaves of the blocks that are asked for by name.

        Raises:
            ValueError: n_batch is too small.
        """
        n_lanes = options.n_parallel
        if n_lanes == 1:
            return None
        n_ids = min((_MOST_SEQUENCES - 2) // n_lanes, max(n_leaves, 16, min(32, 128 // n_lanes)))
        n_ubatch = min(options.n_ubatch, options.n_batch)
        if options.n_batch < n_lanes * n_ids + 2 or n_ubatch < 2:
            raise ValueError(
                f"n_parallel={n_lanes} needs n_batch of {n_lanes * n_ids + 2} and n_ubatch of 2 at least, "
                f"got {options.n_batch} and {options.n_ubatch}"
            )
        parked = int(options.cache_ram * 2**20)
        if options.uses_devices():
            return PoolSizes(n_lanes, n_ids, rows=n_ubatch, piece=n_ubatch, pad_from=0, parked_bytes=parked)
        pad_from = _PAD_FROM if options.n_threads > 1 else 0
        rows, piece = min(n_ubatch, _ROWS), min(n_ubatch, _PIECE)
        return PoolSizes(n_lanes, n_ids, rows=rows, piece=piece, pad_from=pad_from, parked_bytes=parked)

    def with_states(self) -> PoolSizes:
        """The same for a model with a recurrent state: each lane has one sequence, and its state."""
        return replace(self, n_ids=1, has_states=True)

    def n_sequences(self) -> int:
        """Sequences that the context must have."""
        return self.n_lanes * self.n_ids + 2


class PoolFigures(NamedTuple):
    """What the cells of a pool are used for, an mp_pool_figures."""

    n_cells: int
    n_used: int
    n_compactions: int
    n_parked: int  # texts that had to leave the cells and are kept in memory
    parked_bytes: int


class Pool:
    """Sessions in one llama_context.

    Args:
        ctx: a llama_context, which outlives the pool; with snapshots where its model has a recurrent state.
        table: rows of the embedding table for masks; None = none.
        embedding_scale: by which these rows stand for token ids.
        sizes: which the context fits.
        cpu_kernels: whether its passes take our kernels on the CPU.

    Raises:
        ModelError: the context cannot be used.
    """

    def __init__(
        self, ctx: Any, table: Embeddings | None, embedding_scale: float, sizes: PoolSizes, *, cpu_kernels: bool
    ) -> None:
        c_ctx = ffi.cast("struct llama_context *", address_of(ctx))
        c_sizes = ffi.new("mp_pool_sizes *", (sizes.n_lanes, sizes.n_ids, sizes.rows, sizes.piece, sizes.pad_from))
        pool = lib.mp_pool_init(c_ctx, ffi.NULL if table is None else table.handle, embedding_scale, c_sizes)
        if pool == ffi.NULL:
            raise ModelError(ffi.string(lib.mp_last_error()).decode())
        self._c: Any = ffi.gc(pool, lib.mp_pool_free)
        check(lib.mp_pool_set_kernels(pool, int(cpu_kernels)))
        check(lib.mp_pool_park(pool, sizes.parked_bytes))
        self.sizes = sizes
        self.lanes = [
            Session.of_handle(lib.mp_pool_lane(pool, i), table, cpu_kernels=cpu_kernels) for i in range(sizes.n_lanes)
        ]
        self._passes = ffi.new("mp_pass[]", sizes.n_lanes)
        self._statuses = ffi.new("int32_t[]", sizes.n_lanes)

    def close(self) -> None:
        """Frees the pool and its lanes; nothing may be called after."""
        for lane in self.lanes:
            lane.close()
        ffi.release(self._c)

    def step(self, lanes: Sequence[int], outs: Sequence[Pass]) -> list[BaseException | None]:
        """One pass for these lanes, into a Pass each. A lane that must wait for room gets a pass without rows.

        Returns for each lane why it failed: what :meth:`Session.step` raises, or None.
        """
        check(lib.mp_pool_step(self._c, lanes, len(lanes), self._passes, self._statuses))
        errors: list[BaseException | None] = []
        for i, (lane, out) in enumerate(zip(lanes, outs, strict=True)):
            out.c[0] = self._passes[i]
            raised = self.lanes[lane].raised()
            errors.append(error_of(self._statuses[i], lib.mp_pool_error(self._c, lane)) or raised)
        return errors

    def figures(self) -> PoolFigures:
        """What its cells are used for."""
        c = ffi.new("mp_pool_figures *")
        check(lib.mp_pool_get_figures(self._c, c))
        return PoolFigures(c.n_cells, c.n_used, c.n_compactions, c.n_parked, c.parked_bytes)
