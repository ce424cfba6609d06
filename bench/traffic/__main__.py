"""Counts what passes move between host and device, by a library that stands in front of ggml's own functions.

For llama-cpp-python with a GPU backend, on Linux; any device will do, a software device of Vulkan too. Counts do not
depend on the machine.

python -m bench.traffic --model smollm2
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.hub import resolve_model

SOURCE = Path(__file__).with_name("counter.c")
LIBRARY = "MASKPROBE_TRAFFIC_LIBRARY"
PROMPT = "one, two, three, one, two, three, one, two,"
MODES = {
    "plain": False,
    "4 rows with masks": Speculation(budget=4),
    "8 rows with masks": Speculation(budget=8),
    "8 rows without masks": Speculation(budget=8, masks=0),
}


class Counts(ctypes.Structure):
    """As in counter.c."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in ("to_device_bytes", "to_device_calls", "to_host_bytes", "to_host_calls", "graphs", "waits")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--n-gpu-layers", type=int, default=-1)
    parser.add_argument("--n-ctx", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--max-tokens", type=int, default=24)
    args = parser.parse_args()
    if LIBRARY not in os.environ:
        sys.exit(counted_run())
    counter = ctypes.CDLL(os.environ[LIBRARY])
    counter.traffic_take.restype = Counts
    for n_ctx in args.n_ctx:
        options = {"n_ctx": n_ctx, "n_gpu_layers": args.n_gpu_layers, "speculation": Speculation(budget=8)}
        with MaskProbeLlama(resolve_model(args.model), **options) as llm:  # with a budget nothing is measured at load
            Console(width=110).print(table_of(llm, counter, args.max_tokens))


def counted_run() -> int:
    """This program once more, with the counter in front of ggml."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "counter.so")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", SOURCE, "-o", library, "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), LIBRARY: str(library)}
        return subprocess.run([sys.executable, "-m", "bench.traffic", *sys.argv[1:]], env=environment).returncode


def table_of(llm: MaskProbeLlama, counter: Any, max_tokens: int) -> Table:
    """What the passes of each mode move."""
    row_bytes = 4 * llm.n_vocab()
    table = Table(title=f"{llm.description()}, n_ctx {llm.n_ctx()}, medians per pass; logits of a row: {row_bytes:,} B")
    for column in ("", "rows", "tokens", "to host, B", "in rows of logits", "calls", "to device, B", "calls", "waits"):
        table.add_column(column, justify="left" if not column else "right")
    for name, speculate in MODES.items():
        stats, passes = counted(llm, counter, speculate, max_tokens)
        bytes_read = [taken.to_host_bytes for taken in passes]
        table.add_row(
            name,
            f"{stats.rows / stats.passes:.1f}",
            f"{stats.acceptance_length:.2f}",
            f"{median(bytes_read):,.0f}",
            f"{sum(bytes_read) / row_bytes / stats.passes:.1f}",
            f"{median(taken.to_host_calls for taken in passes):.0f}",
            f"{median(taken.to_device_bytes for taken in passes):,.0f}",
            f"{median(taken.to_device_calls for taken in passes):.0f}",
            f"{sum(taken.waits for taken in passes) / stats.passes:.1f}",
        )
    return table


def counted(llm: MaskProbeLlama, counter: Any, speculate: Any, max_tokens: int) -> tuple[Any, list[Counts]]:
    """A generation's figures, and what each of its passes moved; the prompt's are left out."""
    passes: list[Counts] = []
    llm.reset(learned=True)
    out = llm.generate(
        PROMPT,
        max_tokens=max_tokens,
        temperature=0.0,
        speculate=speculate,
        cache_prompt=False,
        before_pass=lambda: passes.append(counter.traffic_take()),
    )
    passes.append(counter.traffic_take())
    return out.stats, passes[-out.stats.passes :]


if __name__ == "__main__":
    main()
