"""A session of the core: a KV cache and the generation that runs in it. [ESP, §3]

Fills the C ABI's structs and reads them; what to draft with is decided before, what becomes of the tokens after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..llamacpp.installed import address_of
from .binding import check, ffi, lib
from .embeddings import Embeddings, FloatArray

ADJACENCY_WIDTH: int = lib.MP_ADJACENCY_WIDTH  # candidates per token
_TREES = {"static": lib.MP_TREE_STATIC, "dynamic": lib.MP_TREE_DYNAMIC, "mixed": lib.MP_TREE_MIXED}
_SOURCES = {"ngrams": lib.MP_SOURCE_NGRAMS, "adjacency": lib.MP_SOURCE_ADJACENCY, "history": lib.MP_SOURCE_HISTORY}

# Token ids and log-probabilities of what follows each of n tokens, [n, ADJACENCY_WIDTH] each, best first.
Followers = tuple[npt.NDArray[np.int32], FloatArray]


@dataclass(frozen=True, eq=False, kw_only=True)
class DraftSettings:
    """How the core drafts in one generation; a :class:`~maskprobe.Speculation` with everything looked up."""

    tree: Literal["static", "dynamic", "mixed"]
    masks: FloatArray  # start values, [masks per node, n_embd]
    update: float  # lambda of [ESP, eq. 5]
    block: int  # most rows of a pass
    widths: Sequence[int] = ()  # children per depth of a static tree
    prune: bool = True
    cost: FloatArray | None = None  # of passes of 1.. rows, mixed tree only
    change: float = 0.0  # what a pass costs more after one of another number of rows
    refine: bool = False  # correct the costs, which are in ms then, by what passes take
    sources: Sequence[str] = ()  # of a mixed tree, beside the masks


class Guide(Protocol):
    """Whoever knows the grammar of an answer."""

    def allowed(self, drafted: list[int]) -> tuple[bytes, int | None] | None:
        """What may follow the committed tokens and some drafted ones; None where nothing is known.

        Returns:
            A bit for each token of the vocabulary, the lowest first, in words of 32; and the token with which the text
            that must follow begins, if there is such a text.
        """
        ...


class Shape(NamedTuple):
    """What drafts a session's memory takes, an mp_shape."""

    is_chain: bool  # one chain, masks at its end; else any tree
    n_snapshots: int  # most drafted tokens and masks that are taken back without decoding again; 0 = no such limit
    decodes_again: bool  # a chain that is not accepted as a whole is decoded again as far as it was


class Pass:
    """What one call decoded and committed: an mp_pass, which every call fills anew."""

    def __init__(self) -> None:
        self.c: Any = ffi.new("mp_pass *")

    def tokens(self) -> list[int]:
        """Committed tokens; none while the prompt is not finished."""
        return ffi.unpack(self.c.tokens, self.c.n_tokens) if self.c.n_tokens else []

    @property
    def n_accepted(self) -> int:
        """So many of the tokens were drafted; the one after them is the bonus token."""
        return int(self.c.n_accepted)

    @property
    def n_drafted(self) -> int:
        """Drafted tokens among its rows."""
        return int(self.c.n_drafted)

    @property
    def n_rows(self) -> int:
        """Rows given to llama_decode."""
        return int(self.c.n_rows)

    @property
    def end(self) -> bool:
        """Whether the last token ends the generation."""
        return bool(self.c.end)

    @property
    def price(self) -> float:
        """Expected tokens that a pass had to bring per unit of cost, mixed tree only."""
        return float(self.c.price)

    def logprobs(self, i: int) -> tuple[float, list[tuple[int, float]]]:
        """The model's log-probability of the i-th token; ids and log-probabilities of what it ranks highest there."""
        c, first = self.c, i * self.c.n_top
        return c.logp[i], [(c.top[j], c.top_logp[j]) for j in range(first, first + c.n_top)]


class Session:
    """A KV cache in a llama_context, and the generation that runs in it.

    Args:
        ctx: a llama_context, which outlives the session.
        table: rows of the embedding table for masks; None = plain decoding only.
        cpu_kernels: whether its passes take our kernels on the CPU.

    Raises:
        ModelError: the context cannot be used.
    """

    def __init__(self, ctx: Any, table: Embeddings | None, *, cpu_kernels: bool) -> None:
        c_ctx = ffi.cast("struct llama_context *", address_of(ctx))
        self._own(lib.mp_session_init(c_ctx, ffi.NULL if table is None else table.handle, 1.0), table, cpu_kernels)

    @classmethod
    def of_handle(cls, handle: Any, table: Embeddings | None, *, cpu_kernels: bool) -> Session:
        """A session that was made elsewhere, an mp_session; it is freed with this object. Raises as the class does."""
        session = cls.__new__(cls)
        session._own(handle, table, cpu_kernels)
        return session

    def _own(self, handle: Any, table: Embeddings | None, cpu_kernels: bool) -> None:
        if handle == ffi.NULL:
            raise ModelError(ffi.string(lib.mp_last_error()).decode())
        self._table = table  # which the session borrows
        self._guide: Any = ffi.NULL  # the callback of the present generation, which borrows it
        self._raised: list[BaseException] = []  # within it
        self._cpu_kernels = cpu_kernels
        self._c: Any = ffi.gc(handle, lib.mp_session_free)
        self._use_kernels(cpu_kernels)

    def close(self) -> None:
        """Frees the session; nothing may be called after."""
        ffi.release(self._c)
        self._table = None

    def shape(self) -> Shape:
        """What drafts its memory takes."""
        shape = ffi.new("mp_shape *")
        check(lib.mp_session_shape(self._c, shape))
        return Shape(bool(shape.is_chain), int(shape.n_snapshots), bool(shape.decodes_again))

    # --- one generation -------------------------------------------------------------------------------

    def begin(
        self,
        prompt: Sequence[int],
        chain: Any,
        settings: DraftSettings | None,
        max_tokens: int,
        *,
        reuse: bool,
        guide: Guide | None = None,
    ) -> int:
        """Starts a generation. Returns how many tokens of the prompt the KV cache holds already.

        Args:
            prompt: token ids.
            chain: a llama_sampler, None = greedy; the session draws from it, once per committed token.
            settings: None = plain decoding.
            max_tokens: at most so many tokens are committed.
            reuse: keep what the KV cache and the prompt begin with in common.
            guide: is asked what may follow drafted tokens; None = anything may.

        Raises:
            ValueError: the settings do not fit the context.
        """
        n_reused = ffi.new("size_t *")
        c_chain = ffi.NULL if chain is None else ffi.cast("struct llama_sampler *", address_of(chain))
        c_settings = _speculation(settings)
        c_guide = c_settings.guide = ffi.NULL if guide is None else _c_guide(guide, self._raised.append)
        check(lib.mp_session_begin(self._c, prompt, len(prompt), c_chain, c_settings, max_tokens, reuse, n_reused))
        self._guide = c_guide  # the last one's until here: after a failure the core goes on with it
        return int(n_reused[0])

    def report_logprobs(self, n_top: int | None) -> None:
        """Passes report log-probabilities of tokens and of the n_top best from now on; None = no more."""
        check(lib.mp_session_report_logprobs(self._c, -1 if n_top is None else n_top))

    def prefill(self, out: Pass) -> None:
        """Decodes the next piece of the prompt; the last one commits the first token.

        Raises:
            DecodeError: llama.cpp failed; the KV cache is as before.
            SamplingError: the chain leaves no token.
        """
        check(lib.mp_session_prefill(self._c, out.c))

    def step(self, out: Pass) -> None:
        """One pass: draft, decode, verify, commit. Raises what :meth:`prefill` and the guide raise."""
        check(lib.mp_session_step(self._c, out.c))
        if (error := self.raised()) is not None:
            raise error

    def raised(self) -> BaseException | None:
        """What the guide has raised since it was last asked for, as a KeyboardInterrupt, which must not be lost."""
        return self._raised.pop() if self._raised else None

    def end(self) -> None:
        """Ends the present generation, if there is one; the KV cache stays for the next."""
        check(lib.mp_session_end(self._c))

    def totals(self) -> Any:
        """What the passes of the present generation add up to, an mp_totals."""
        totals = ffi.new("mp_totals *")
        check(lib.mp_session_totals(self._c, totals))
        return totals

    @contextmanager
    def stock_kernels(self) -> Iterator[None]:
        """Passes take llama.cpp's own kernels alone until the end of the block: what it would be without us."""
        self._use_kernels(False)
        try:
            yield
        finally:
            self._use_kernels(self._cpu_kernels)

    def _use_kernels(self, use: bool) -> None:
        check(lib.mp_session_set_kernels(self._c, int(use)))

    # --- the KV cache ---------------------------------------------------------------------------------

    def n_cached(self) -> int:
        """Tokens in the KV cache."""
        return int(lib.mp_session_n_cached(self._c))

    def cached(self) -> list[int]:
        """The tokens in the KV cache."""
        tokens = ffi.new("int32_t[]", self.n_cached())
        check(lib.mp_session_cached(self._c, tokens))
        return list(tokens)

    def restore(self, tokens: Sequence[int]) -> None:
        """Says that these tokens were put into the KV cache after a reset, in sequence 0 alone."""
        check(lib.mp_session_restore(self._c, list(tokens), len(tokens)))

    def reset(self) -> None:
        """Forgets the KV cache."""
        check(lib.mp_session_reset(self._c))

    # --- what drafts learn ----------------------------------------------------------------------------

    def forget(self) -> None:
        """Forgets what drafts and texts have taught, as in a new session; an adjacency table stays."""
        check(lib.mp_session_forget(self._c))

    def learn_text(self, tokens: npt.NDArray[np.int32]) -> None:
        """Teaches the history a text that the model wrote."""
        check(lib.mp_session_learn_text(self._c, ffi.from_buffer("int32_t[]", tokens), len(tokens)))

    def set_adjacency(self, followers: Followers) -> None:
        """Drafts with the followers of the whole vocabulary, [n_vocab, ADJACENCY_WIDTH] each."""
        ids = np.ascontiguousarray(followers[0], dtype=np.int32)
        logps = np.ascontiguousarray(followers[1], dtype=np.float32)
        c_ids, c_logps = ffi.from_buffer("int32_t[]", ids), ffi.from_buffer("float[]", logps)
        check(lib.mp_session_set_adjacency(self._c, c_ids, c_logps))

    # --- what is found out about a model and a machine; the KV cache must be empty, and stays so --------

    def compare_paths(self, tokens: Sequence[int], scale: float) -> float:
        """Largest difference between the logits of ids and of embedding rows times scale, in their deviations."""
        difference, deviation = ffi.new("float *"), ffi.new("float *")
        check(lib.mp_session_compare_paths(self._c, list(tokens), len(tokens), scale, difference, deviation))
        return float(difference[0]) / max(float(deviation[0]), 1e-9)

    def set_embedding_scale(self, scale: float) -> None:
        """Embedding rows go into passes times this."""
        check(lib.mp_session_set_embedding_scale(self._c, scale))

    def time_rows(self, n_rows: int) -> float:
        """Milliseconds of one llama_decode of n_rows tokens."""
        ms = ffi.new("double *")
        check(lib.mp_session_time_rows(self._c, n_rows, ms))
        return float(ms[0])

    def rank_followers(self, first: int, tokens: Sequence[int]) -> Followers:
        """What follows each token alone after first (-1: after nothing), by one pass."""
        ids = np.empty((len(tokens), ADJACENCY_WIDTH), dtype=np.int32)
        logps = np.empty((len(tokens), ADJACENCY_WIDTH), dtype=np.float32)
        c_ids = ffi.from_buffer("int32_t[]", ids, require_writable=True)
        c_logps = ffi.from_buffer("float[]", logps, require_writable=True)
        check(lib.mp_session_rank_followers(self._c, first, list(tokens), len(tokens), c_ids, c_logps))
        return ids, logps


def _c_guide(guide: Guide, raised: Callable[[BaseException], None]) -> Any:
    """A guide as an mp_guide. What it raises is handed on; the pass goes on without it."""

    def ask(_: Any, drafted: Any, n: int, allowed: Any, forced: Any) -> int:
        answer = guide.allowed(ffi.unpack(drafted, n) if n else [])
        if answer is None:
            return 0
        bits, token = answer
        ffi.memmove(allowed, bits, len(bits))
        forced[0] = -1 if token is None else token
        return 1

    return ffi.callback("mp_guide", ask, error=0, onerror=lambda _, error, __: raised(error))


def _speculation(settings: DraftSettings | None) -> Any:
    """An mp_speculation. It borrows the arrays of the settings; the core copies them when a generation begins."""
    c = ffi.new("mp_speculation *")
    if settings is None:
        return c  # all zero: MP_TREE_NONE
    c.tree = _TREES[settings.tree]
    c.n_masks = len(settings.masks)
    c.masks = ffi.from_buffer("float[]", settings.masks)
    c.update = settings.update
    c.n_widths = len(settings.widths)
    c.widths[0 : len(settings.widths)] = list(settings.widths)
    c.block = settings.block
    c.prune = settings.prune
    if settings.cost is not None:
        c.cost = ffi.from_buffer("float[]", settings.cost)
        c.n_cost, c.change, c.refine = len(settings.cost), settings.change, settings.refine
    c.sources = sum(flag for name, flag in _SOURCES.items() if name in settings.sources)
    return c
