"""A model with its session in the core, and what is known of both: can it be probed, what do rows cost here.

Knows the C ABI and the model; leaves prompts as text, streams and locking to MaskProbeLlama.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import survey
from ..core.binding import check, ffi, lib
from ..core.embeddings import Embeddings, FloatArray
from ..drafting import costs, store
from ..drafting.start_vectors import ProbeChoice
from ..errors import ModelError, UnsupportedModelError
from ..llamacpp.installed import address_of, llama_cpp
from ..llamacpp.model import Model
from ..speculation import Speculation

# Ids and embedding rows must give the same logits; backends may differ in the last bits only.
_PATHS_AGREE = 0.02  # of the logits' standard deviation
_SOURCES = {"ngrams": lib.MP_SOURCE_NGRAMS, "adjacency": lib.MP_SOURCE_ADJACENCY, "history": lib.MP_SOURCE_HISTORY}
_TREES = {"static": lib.MP_TREE_STATIC, "dynamic": lib.MP_TREE_DYNAMIC, "mixed": lib.MP_TREE_MIXED}


@dataclass(frozen=True)
class Begun:
    """A generation that has begun."""

    n_reused: int  # prompt tokens that the KV cache holds
    probe: str  # name of the masks' start vector, empty for plain decoding
    curve: costs.Curve | None  # that a mixed tree plans with


class Engine:
    """Owns the model and the session.

    Raises:
        ModelError: the session cannot be made.
    """

    def __init__(self, model: Model, setup: str, *, cpu_kernels: bool) -> None:
        self.model = model
        self.setup = setup  # names what costs depend on besides the model
        self.cpu_kernels = cpu_kernels  # whether its passes take our kernels
        self.why_plain: str | None = None  # why the model cannot be probed
        self.embedding_scale: float | None = None  # by which embedding rows stand for token ids
        self._session: Any = None
        self._embeddings: Embeddings | None = None
        self._costs: costs.Costs | None = None
        self._probes: ProbeChoice | None = None  # read when first needed
        self._texts: store.Texts = []  # that the model wrote for tuning
        # Called before every llama_decode of a generation; what it raises ends the generation, the model stays whole.
        self.before_pass: Callable[[], None] | None = None
        self.why_plain = self._open_session()

    def close(self) -> None:
        """Frees everything; the engine is unusable after."""
        if self._session is not None:
            ffi.release(self._session)
            self._session = None
        self._embeddings = None
        self.model.close()

    def check_fits(self, speculation: Speculation) -> None:
        """Checks a speculation against the model and its context.

        Raises:
            UnsupportedModelError: the model cannot be probed.
            ValueError: the blocks are too large for the context.
        """
        if self.why_plain is not None:
            raise UnsupportedModelError(f"{self.model.path.name} cannot be probed: {self.why_plain}")
        n_ubatch = llama_cpp.llama_n_ubatch(self.model.ctx)
        if speculation.rows() > n_ubatch and speculation.budget != "auto":
            raise ValueError(
                f"a block of {speculation.rows()} rows does not fit n_ubatch={n_ubatch}; "
                "use a smaller block or load the model with larger n_batch and n_ubatch"
            )
        n_seq_max = llama_cpp.llama_n_seq_max(self.model.ctx)
        if speculation.leaves() > n_seq_max:
            raise ValueError(
                f"a block of {speculation.rows()} rows with masks={speculation.masks} has up to "
                f"{speculation.leaves()} leaves, but this context has {n_seq_max} sequences; "
                "load the model with that speculation"
            )

    # --- one generation -------------------------------------------------------------------------------

    def begin(
        self,
        prompt: list[int],
        chain: Any,
        speculation: Speculation | None,
        max_tokens: int,
        *,
        seed: int,
        cache_prompt: bool,
    ) -> Begun:
        """Hands a prompt and the settings to the session; speculation None = plain decoding."""
        settings = ffi.new("mp_speculation *")
        probe, curve = "", None
        if speculation is not None:
            assert self._embeddings is not None, "speculation is refused without embeddings"
            probe, vector = self._start_vector(speculation)
            masks = self._embeddings.start_masks(speculation.masks, vector, prompt, seed)
            widths = speculation.widths()
            settings.tree = _TREES[speculation.tree if isinstance(speculation.tree, str) else "static"]
            settings.n_masks = speculation.masks
            settings.n_widths = len(widths)
            settings.widths[0 : len(widths)] = widths
            # Chosen rows adapt to the context; asked-for ones have been checked against it.
            settings.block = min(speculation.rows(), llama_cpp.llama_n_ubatch(self.model.ctx))
            settings.prune = speculation.prune
            settings.update = speculation.update_for(vector)
            # The core copies arrays: masks and curve live until it has.
            settings.masks = ffi.from_buffer("float[]", masks)
            if speculation.is_mixed():
                curve, refine, change = costs.curve_for(speculation, self.measured_costs)
                settings.cost = ffi.from_buffer("float[]", curve)
                settings.n_cost, settings.refine, settings.change = len(curve), refine, change
                settings.sources = sum(flag for name, flag in _SOURCES.items() if name in speculation.sources)
        n_reused = ffi.new("size_t *")
        c_chain = ffi.NULL if chain is None else ffi.cast("struct llama_sampler *", address_of(chain))
        check(
            lib.mp_session_begin(
                self._session, prompt, len(prompt), c_chain, settings, max_tokens, cache_prompt, n_reused
            )
        )
        return Begun(n_reused[0], probe, curve)

    @contextmanager
    def stock_kernels(self) -> Iterator[None]:
        """Passes take llama.cpp's own kernels alone until the end of the block: what it would be without us."""
        check(lib.mp_session_set_kernels(self._session, 0))
        try:
            yield
        finally:
            check(lib.mp_session_set_kernels(self._session, int(self.cpu_kernels)))

    def report_logprobs(self, n_top: int | None) -> None:
        """Passes report log-probabilities of tokens and of the n_top best from now on; None = no more."""
        check(lib.mp_session_report_logprobs(self._session, -1 if n_top is None else n_top))

    def prefill(self, c_pass: Any) -> None:
        """Decodes the next piece of the prompt; the last one commits the first token."""
        if self.before_pass is not None:
            self.before_pass()
        check(lib.mp_session_prefill(self._session, c_pass))

    def step(self, c_pass: Any) -> None:
        """One pass: draft, decode, verify, commit."""
        if self.before_pass is not None:
            self.before_pass()
        check(lib.mp_session_step(self._session, c_pass))

    def totals(self) -> Any:
        """What the passes of the present generation add up to, an mp_totals."""
        totals = ffi.new("mp_totals *")
        check(lib.mp_session_totals(self._session, totals))
        return totals

    def n_cached(self) -> int:
        """Tokens in the KV cache."""
        return int(lib.mp_session_n_cached(self._session))

    def cached(self) -> list[int]:
        """The tokens in the KV cache."""
        tokens = ffi.new("int32_t[]", self.n_cached())
        check(lib.mp_session_cached(self._session, tokens))
        return list(tokens)

    def restore(self, tokens: Sequence[int]) -> None:
        """Says that these tokens were put into the KV cache after a reset, in sequence 0 alone."""
        check(lib.mp_session_restore(self._session, list(tokens), len(tokens)))

    def reset(self) -> None:
        """Forgets the KV cache."""
        check(lib.mp_session_reset(self._session))

    def forget(self) -> None:
        """Forgets what drafts have taught, as in a new object; what tuning found stays."""
        check(lib.mp_session_forget(self._session))
        self.use_texts(self._texts)

    def _start_vector(self, speculation: Speculation) -> tuple[str, str | FloatArray]:
        """Name and start vector (or the name again) of the masks."""
        probe = speculation.probe
        if isinstance(probe, np.ndarray):
            return "array", probe
        if probe is not None and probe != "auto":
            return probe, probe
        choice = self.probe_choice()
        name, vector = choice.name(), choice.vector
        if name == "catalogue" and vector is not None:
            return name, vector
        return name, name

    # --- what is found out once per model and machine ---------------------------------------------------

    def probe_choice(self) -> ProbeChoice:
        """The scores of the start vectors of masks."""
        if self._probes is None:
            self._probes = ProbeChoice(self.model.path, self.model.n_embd)
        return self._probes

    def measured_costs(self) -> costs.Costs:
        """Milliseconds of a pass by rows on this machine: as tuned, or measured now; empties the KV cache then."""
        if self._costs is None:
            self._costs = store.load_costs(self.model.path, self.setup)
        if self._costs is None:
            self._costs = self.measure_costs()
        return self._costs

    def measure_costs(self, seconds: float = costs.SECONDS) -> costs.Costs:
        """Measures the milliseconds of a pass by rows and plans with them from now on; empties the KV cache."""
        self.reset()
        n_rows = min(costs.MEASURED_ROWS, llama_cpp.llama_n_ubatch(self.model.ctx))
        self._costs = costs.measure(lambda n: survey.time_rows(self._session, n), n_rows, seconds)
        return self._costs

    def rank_followers(self, tokens: Sequence[int]) -> survey.Followers:
        """What the model ranks highest right after each token alone, by one pass; empties the KV cache."""
        self.reset()
        return survey.rank_followers(self._session, self.model.vocab.bos, tokens)

    def most_followers(self) -> int:
        """Most tokens that one call of rank_followers takes."""
        ctx = self.model.ctx
        return min(int(llama_cpp.llama_n_seq_max(ctx)), int(llama_cpp.llama_n_ubatch(ctx)) - 1)

    def use_adjacency(self, followers: survey.Followers) -> None:
        """Drafts with these followers of the whole vocabulary."""
        survey.set_adjacency(self._session, followers)

    def use_texts(self, texts: store.Texts) -> None:
        """Drafts with the phrases of these texts, which the model wrote."""
        self._texts = texts
        for text in texts:
            check(lib.mp_session_learn_text(self._session, ffi.from_buffer("int32_t[]", text), len(text)))

    # --- can the model be probed ------------------------------------------------------------------------

    def _open_session(self) -> str | None:
        """Makes the session. Returns why the model cannot be probed, None if it can."""
        why = self.model.why_no_probing()
        if why is None:
            try:
                table = Embeddings(self.model.path)
            except ModelError as error:
                why = str(error)
            else:
                why = self._open_probing_session(table)
        if why is not None:
            self._session = self._new_session(None)
        return why

    def _new_session(self, table: Embeddings | None) -> Any:
        ctx = ffi.cast("struct llama_context *", address_of(self.model.ctx))
        session = lib.mp_session_init(ctx, ffi.NULL if table is None else table.handle, 1.0)
        if session == ffi.NULL:
            raise ModelError(ffi.string(lib.mp_last_error()).decode())
        check(lib.mp_session_set_kernels(session, int(self.cpu_kernels)))
        return ffi.gc(session, lib.mp_session_free)

    def _open_probing_session(self, table: Embeddings) -> str | None:
        """Makes a session that reads the table. Returns why the table does not stand for the token ids."""
        if (table.n_embd, table.n_vocab) != (self.model.n_embd, self.model.n_vocab):
            return f"its embedding table is {table.n_vocab} x {table.n_embd}, not one row per token"
        session = self._new_session(table)
        scale = self._find_embedding_scale(session)
        if scale is None:
            return "its embedding rows do not reproduce the logits of its token ids"
        check(lib.mp_session_set_embedding_scale(session, scale))
        self.embedding_scale = scale
        self._session, self._embeddings = session, table
        if (followers := store.load_adjacency(self.model.path, self.model.n_vocab)) is not None:
            self.use_adjacency(followers)
        self.use_texts(store.load_texts(self.model.path, self.model.n_vocab))
        return None

    def _find_embedding_scale(self, session: Any) -> float | None:
        """The factor by which embedding rows give the logits of token ids, None if no known one does.

        Some architectures scale embeddings on the way in for ids only (Gemma by sqrt(n_embd), others by a
        metadata value), some look up more than one table per id.
        """
        tokens = [self.model.n_vocab // 3, self.model.n_vocab // 2]
        scales = [1.0, math.sqrt(self.model.n_embd)]
        architecture = self.model.metadata("general.architecture")
        if (value := self.model.metadata(f"{architecture}.embedding_scale")) is not None:
            scales.append(float(value))
        for scale in scales:
            if survey.compare_paths(session, tokens, scale) <= _PATHS_AGREE:
                return scale
        return None
