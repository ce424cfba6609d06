"""`maskprobe tune`: the once-per-model work, by forward passes alone; interruptible and resumable.

Knows the steps and how to show them; `drafting.store` keeps what is found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from ..drafting import store
from ..drafting.costs import Costs
from ..errors import MaskProbeError
from ..generation.engine import Engine
from ..llama import MaskProbeLlama
from ..results import Stats
from ..speculation import Speculation
from . import own_texts

# One short prompt per kind of text; answers that copy, list, reason and tell differ in what drafts well.
SAMPLES = {
    "story": "Tell a short story about a fox who learns to read.",
    "explanation": "Explain how a bicycle stays upright.",
    "list": "List ten things to pack for a week of hiking, one per line.",
    "code": "Write a Python function that returns the n-th Fibonacci number, with a docstring.",
    "copying": "Repeat this sentence three times: The committee will meet on Thursday at noon in the main hall.",
    "rewriting": (
        "Correct the mistakes in this text: Yesterday we goes to the market and buyed three apple. "
        "The seller were very friendly and he give us a extra apple for free."
    ),
}
_SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Effort:
    """How much is done."""

    adjacency: bool = True  # make the table of followers
    text_tokens: int = own_texts.TOKENS  # of texts of the model's own
    n_samples: int = len(SAMPLES)  # kinds of text that start vectors and speed are measured with, the first of them
    cost_seconds: float = 120.0  # at most, for what rows cost


QUICK = Effort(adjacency=False, text_tokens=200, n_samples=1, cost_seconds=5.0)


def tune(llm: MaskProbeLlama, console: Console, effort: Effort, *, plot: Path | None = None) -> None:
    """Runs all steps and prints what they found.

    Raises:
        MaskProbeError: nothing can be drafted, or matplotlib is missing for the plot.
    """
    if llm.drafting.shape == "none":
        raise MaskProbeError(f"nothing to tune: the model is decoded plainly, because {llm.drafting.why_none}")
    engine = llm.engine
    curve = _tune_costs(engine, console, effort.cost_seconds)
    if effort.adjacency and llm.drafting.shape == "trees":  # a chain at a time would take hours
        _tune_adjacency(engine, console)
    tune_texts(llm, console, effort.text_tokens)
    samples = dict(islice(SAMPLES.items(), effort.n_samples))
    scores = _tune_probe(llm, console, samples)
    speeds = _measure_speed(llm, console, samples)
    _show(console, llm, curve, scores, speeds)
    if plot is not None:
        _plot(plot, llm, curve, speeds)
        console.print(f"plot written to {plot}")


def _tune_costs(engine: Engine, console: Console, seconds: float) -> Costs:
    with console.status("measuring what rows cost"):
        curve = engine.knowledge.measure_costs(seconds)
    store.store_costs(engine.model.path, engine.setup, curve)
    return curve


def _tune_adjacency(engine: Engine, console: Console) -> None:
    path, n_vocab = engine.model.path, engine.model.n_vocab
    if store.load_adjacency(path, n_vocab) is not None:
        return
    done = store.load_adjacency(path, n_vocab, partial=True)
    ids = [done[0]] if done is not None else []
    logps = [done[1]] if done is not None else []
    n_done = len(ids[0]) if ids else 0
    saved = time.monotonic()

    def save() -> None:
        if ids:
            store.store_adjacency(path, (np.concatenate(ids), np.concatenate(logps)), partial=True)

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("adjacency table", total=n_vocab, completed=n_done)
        try:
            while n_done < n_vocab:
                n = min(engine.knowledge.most_followers(), n_vocab - n_done)
                found = engine.knowledge.rank_followers(range(n_done, n_done + n))
                ids.append(found[0])
                logps.append(found[1])
                n_done += n
                progress.update(task, completed=n_done)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
        except BaseException:
            save()  # interrupted: the next run goes on from here
            raise
    table = (np.concatenate(ids), np.concatenate(logps))
    store.store_adjacency(path, table)
    engine.knowledge.use_adjacency(table)


def tune_texts(llm: MaskProbeLlama, console: Console, n_wanted: int) -> None:
    """Has the model write texts until they have so many tokens together."""
    engine = llm.engine
    path = engine.model.path
    texts = store.load_texts(path, engine.model.n_vocab)
    n_done = sum(map(len, texts))
    if n_done >= n_wanted:
        return
    writer = own_texts.Writer(llm)
    saved = time.monotonic()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("texts of its own", total=n_wanted, completed=n_done)
        try:
            while n_done < n_wanted:
                texts.append(np.array(writer.write(len(texts)), np.int32))
                n_done += max(1, len(texts[-1]))  # a model that says nothing ends this too
                progress.update(task, completed=n_done)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    store.store_texts(path, texts)
                    saved = time.monotonic()
        finally:
            if texts:
                store.store_texts(path, texts)  # interrupted: the next run goes on from here
    engine.knowledge.use_texts(texts)
    llm.reset(learned=True)  # as new objects begin


def _tune_probe(llm: MaskProbeLlama, console: Console, samples: Mapping[str, str]) -> dict[str, float]:
    """Scores every start vector on the same texts: mean log-probability of what came."""
    choice = llm.engine.knowledge.probe_choice()
    scores: dict[str, float] = {}
    if choice is None:
        return scores
    for name in track(choice.names, "probes", console=console, transient=True):
        n, total = 0, 0.0
        vector = choice.vector if name == "catalogue" else name
        for prompt in samples.values():
            # Rows as good as free, so that masks ride in every pass.
            settings = Speculation(budget=12, probe=vector)  # type: ignore[arg-type]
            stats = _answer(llm, prompt, settings, 48)
            n, total = n + stats.probe_n, total + stats.probe_logp
        choice.set(name, n, total)
        scores[name] = total / max(1, n)
    return scores


def _measure_speed(llm: MaskProbeLlama, console: Console, samples: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Speed against plain decoding and tokens per pass, by kind of text."""
    speeds = {}
    for kind, prompt in track(samples.items(), "speed", console=console, transient=True):
        ratios, lengths = [], []
        for _ in range(3):
            plain, ours = (_answer(llm, prompt, mode, 96) for mode in (False, Speculation()))
            ratios.append(ours.predicted_per_second / plain.predicted_per_second)
            lengths.append(ours.acceptance_length)
        speeds[kind] = (statistics.median(ratios), statistics.median(lengths))
    return speeds


def _answer(llm: MaskProbeLlama, prompt: str, speculate: bool | Speculation, n: int) -> Stats:
    ids = llm.apply_chat_template([{"role": "user", "content": prompt}]) if llm.has_chat_template() else prompt
    llm.reset(learned=True)
    return llm.generate(ids, max_tokens=n, temperature=0.0, speculate=speculate, cache_prompt=False).stats


def _show(
    console: Console,
    llm: MaskProbeLlama,
    curve: dict[int, float],
    scores: dict[str, float],
    speeds: dict[str, tuple[float, float]],
) -> None:
    console.print(f"{llm.description()}, {llm.engine.setup}")
    table = Table("rows", "ms", "plain passes", title="cost of a pass", title_justify="left")
    for rows, ms in curve.items():
        table.add_row(str(rows), f"{ms:.1f}", f"{ms / curve[1]:.2f}")
    console.print(table)
    table = Table("start vector of the masks", "log-probability of what came", title="probes", title_justify="left")
    best = max(scores, key=lambda name: scores[name], default="")
    for name, score in scores.items():
        table.add_row(f"{name} (kept)" if name == best else name, f"{score:.2f}")
    console.print(table)
    table = Table("kind of text", "speed against plain", "tokens per pass", title="to expect", title_justify="left")
    for kind, (ratio, length) in speeds.items():
        table.add_row(kind, f"{ratio:.2f}", f"{length:.2f}")
    console.print(table)


def _plot(path: Path, llm: MaskProbeLlama, curve: dict[int, float], speeds: dict[str, tuple[float, float]]) -> None:
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MaskProbeError('plots need matplotlib: pip install "maskprobe[plot]"') from error
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    rows = list(curve)
    left.plot(rows, [curve[n] / curve[1] for n in rows], marker="o")
    left.plot([1, rows[-1]], [1, rows[-1]], linestyle=":", color="gray", label="every row costs a plain pass")
    left.set(title="Cost of a pass", xlabel="rows", ylabel="plain passes", xlim=(0, None), ylim=(0, None))
    left.legend()
    kinds = list(speeds)
    right.barh(kinds, [speeds[kind][0] for kind in kinds])
    right.axvline(1.0, color="gray", linestyle=":")
    right.set(title="Speed against plain decoding", xlabel="ratio")
    right.invert_yaxis()
    figure.suptitle(f"{llm.description()}, {llm.engine.setup}", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)
