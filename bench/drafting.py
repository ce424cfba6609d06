"""What the core does outside llama_decode (sampling, reading masks, drafting, bookkeeping), by vocabulary.

On a one-layer random model, whose llama_decode is short, so that everything else shows. Such a model soon repeats
itself, so passes commit many tokens, and each of them is sampled and ranked: microseconds per committed token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.core.session import Pass
from sizes import Shape, write

SETTINGS = {
    "plain": False,
    "n-grams and adjacency, 10 rows": Speculation(budget=10, sources=("ngrams", "adjacency")),
    "all sources, 10 rows": Speculation(budget=10, probe="table-mean"),
    "all sources, 60 rows": Speculation(budget=60, probe="table-mean"),
}


def core_us(llm: MaskProbeLlama, speculate: Speculation | bool) -> float:
    """Over the passes of one answer of a prompt that repeats itself."""
    us, tokens = 0.0, 0
    session = llm.engine.session
    step = session.step

    def timed(passed: Pass) -> None:
        nonlocal us, tokens
        step(passed)
        us += 1e3 * (passed.c.total_ms - passed.c.decode_ms)
        tokens += passed.c.n_tokens

    session.step = timed  # type: ignore[method-assign]
    try:
        llm.generate([*range(100, 180)] * 3, max_tokens=200, temperature=0.0, speculate=speculate, cache_prompt=False)
    finally:
        session.step = step  # type: ignore[method-assign]
    return us / tokens


def main() -> None:
    table = Table("setting", "49k vocabulary, us/token", "152k vocabulary, us/token")
    columns = []
    for n_vocab in (49152, 151936):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "random.gguf"
            write(path, Shape(256, 1, 2, 2, 256, tied=True, n_vocab=n_vocab), "Q4_0")
            with MaskProbeLlama(path, n_ctx=1024, n_threads=1, speculation=Speculation(budget=1)) as llm:
                columns.append({name: core_us(llm, speculate) for name, speculate in SETTINGS.items()})
    for name in SETTINGS:
        table.add_row(name, *(f"{column[name]:.0f}" for column in columns))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
