"""What a generation returns: text, tokens and its figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Stats:
    """Figures of one generation. Names that llama-server has mean what they mean there; times are in ms.

    ``passes`` are the llama_decode calls after the prompt; the first token comes from the prompt's own last
    call, so ``predicted_n - 1`` tokens were committed by them. An end-of-generation token counts in
    ``predicted_n`` although it has no text.
    """

    prompt_n: int = 0  # prompt tokens decoded
    cache_n: int = 0  # prompt tokens taken from the KV cache
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    passes: int = 0
    rows: int = 0  # rows of all passes
    passes_by_rows: tuple[tuple[int, int], ...] = ()  # (rows, passes that had so many)
    rows_again: int = 0  # of these, accepted tokens decoded again to keep the KV cache in order
    draft_n: int = 0
    draft_n_accepted: int = 0
    accepted_per_depth: tuple[int, ...] = ()  # [d]: passes that accepted more than d drafted tokens
    decode_ms: float = 0.0  # inside llama_decode, passes only
    host_ms: float = 0.0  # predicted_ms without decode_ms
    kv_scans: int = 0  # scans over the cells of the KV cache for bookkeeping
    expected_n: float = 0.0  # tokens that the passes were expected to commit, mixed tree only
    probe: str = ""  # the start vector of the masks
    probe_n: int = 0  # guesses of masks that could be compared with what came
    probe_logp: float = 0.0  # sum of the log-probabilities that they gave to it, floored
    plain_pass_ms: float = 0.0  # what a pass of one row would have taken, about; 0 = not known
    choice: str = ""  # why passes had the rows they had, mixed tree only
    stopped_by: str = ""  # the stop string that ended it, "" if none did
    # [i]: nodes drafted by a mixed tree with a probability of i/10 to (i+1)/10 to be accepted; how many of them
    # were; the sum of those probabilities
    reliability: tuple[tuple[int, int, float], ...] = ()

    @property
    def acceptance_length(self) -> float:
        """Mean tokens committed per pass, tau: accepted drafts + 1 bonus token. 1.0 is plain decoding."""
        return (self.predicted_n - 1) / self.passes if self.passes else 1.0

    @property
    def rows_per_pass(self) -> float:
        return self.rows / self.passes if self.passes else 1.0

    @property
    def prompt_per_second(self) -> float:
        return 1e3 * self.prompt_n / self.prompt_ms if self.prompt_ms else 0.0

    @property
    def predicted_per_second(self) -> float:
        return 1e3 * self.predicted_n / self.predicted_ms if self.predicted_ms else 0.0

    def as_dict(self) -> dict[str, object]:
        """All figures, the derived ones too, ready for JSON."""
        derived = ("acceptance_length", "rows_per_pass", "prompt_per_second", "predicted_per_second")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    def timings(self) -> dict[str, float]:
        """The figures under llama-server's names; draft_* only when something was drafted.

        ``plain_per_second`` is about what plain decoding would have given, by the time of a pass of one row.
        """
        figures = {
            "cache_n": self.cache_n,
            "prompt_n": self.prompt_n,
            "prompt_ms": self.prompt_ms,
            "prompt_per_token_ms": self.prompt_ms / max(1, self.prompt_n),
            "prompt_per_second": self.prompt_per_second,
            "predicted_n": self.predicted_n,
            "predicted_ms": self.predicted_ms,
            "predicted_per_token_ms": self.predicted_ms / max(1, self.predicted_n),
            "predicted_per_second": self.predicted_per_second,
        }
        if self.draft_n:
            figures |= {"draft_n": self.draft_n, "draft_n_accepted": self.draft_n_accepted}
        if self.plain_pass_ms:
            figures["plain_per_second"] = 1e3 / self.plain_pass_ms
        return figures | {"passes": self.passes, "rows": self.rows, "acceptance_length": self.acceptance_length}

    def __str__(self) -> str:
        return (
            f"{self.predicted_n} tokens in {self.passes} passes, acceptance length {self.acceptance_length:.2f}, "
            f"{self.predicted_per_second:.1f} tokens/s"
        )


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What the model itself, before any sampling, thinks of a token and of what it ranks highest in its place."""

    logprob: float
    top: list[tuple[int, float]]  # token ids and log-probabilities, best first


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: one committed token and the text it completes.

    Text that may yet turn out to be a stop string, or half a character, comes with a later chunk; the last
    chunk has no token, the text still held back, ``finish_reason`` and ``stats``.
    """

    text: str
    tokens: list[int] = field(default_factory=list)
    from_draft: bool = False  # the token was drafted and accepted, not the pass's bonus token
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    logprobs: TokenLogprobs | None = None  # of the token, where asked for


@dataclass(frozen=True)
class Drafting:
    """How a model's answers can be drafted, and why not more."""

    shape: Literal["trees", "chains", "none"]
    masks: bool = False  # whether mask embeddings ride along
    why_no_trees: str | None = None
    why_no_masks: str | None = None
    why_none: str | None = None
    n_snapshots: int = 0  # most drafted tokens and masks of a chain that are taken back without decoding again
    snapshot_bytes: int = 0  # of all snapshots
    why_in_turn: str | None = None  # why n_parallel generations are run one after the other

    def __str__(self) -> str:
        if self.shape == "none":
            return f"none: {self.why_none}"
        if self.shape == "trees":
            return "trees, with masks" if self.masks else f"trees, without masks: {self.why_no_masks}"
        what = f"chains, as {self.why_no_trees}"
        if self.n_snapshots:
            what += f"; {self.n_snapshots} snapshots of the state take {self.snapshot_bytes / 2**20:.1f} MiB"
        else:
            what += "; a chain that is not accepted as a whole is decoded again as far as it was"
        if self.why_in_turn is not None:
            what += f"; generations take turns, as {self.why_in_turn}"
        return what + ("; masks at their end" if self.masks else f"; no masks: {self.why_no_masks}")


@dataclass(frozen=True)
class Generation:
    """A finished generation. ``tokens`` are the generated ids without the end-of-generation token."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    stats: Stats
    from_draft: list[bool] = field(default_factory=list)  # per token
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # per token, where asked for

    @staticmethod
    def of_chunks(chunks: Iterable[Chunk]) -> Generation:
        """What the chunks of a whole stream make together."""
        text: list[str] = []
        tokens: list[int] = []
        from_draft: list[bool] = []
        logprobs: list[TokenLogprobs] = []
        for chunk in chunks:
            text.append(chunk.text)
            tokens += chunk.tokens
            from_draft += [chunk.from_draft] * len(chunk.tokens)
            logprobs += [chunk.logprobs] if chunk.logprobs else []
            reason, stats = chunk.finish_reason, chunk.stats
        assert reason is not None, "a stream ends with its finish reason"
        assert stats is not None, "a stream ends with its figures"
        return Generation("".join(text), tokens, reason, stats, from_draft, logprobs)


@dataclass(frozen=True)
class Finished:
    """One of many generations: which prompt it belongs to, counted from 0, and how it ended."""

    index: int
    generation: Generation | None
    error: Exception | None  # why there is none
