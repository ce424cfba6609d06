"""Peak resident memory of a generation, each in a process of its own: llama-cpp-python, ours plain, ours."""

from __future__ import annotations

import argparse
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from models import quantized

COMMON = """
import resource, sys
path, n_ctx = sys.argv[1], int(sys.argv[2])
text = "Once upon a time there was a lighthouse keeper. " * 40
"""
CODE = {
    "llama-cpp-python": """
from llama_cpp import Llama
llm = Llama(path, n_ctx=n_ctx, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False)
llm.create_completion(text, max_tokens=64, temperature=0.0)
""",
    "maskprobe, plain": """
from maskprobe import MaskProbeLlama
MaskProbeLlama(path, n_ctx=n_ctx, n_threads=1).generate(text, max_tokens=64, temperature=0.0, speculate=False)
""",
    "maskprobe": """
from maskprobe import MaskProbeLlama
MaskProbeLlama(path, n_ctx=n_ctx, n_threads=1).generate(text, max_tokens=64, temperature=0.0)
""",
    "maskprobe, 60 rows": """
from maskprobe import MaskProbeLlama, Speculation
llm = MaskProbeLlama(path, n_ctx=n_ctx, n_threads=1)
llm.generate(text, max_tokens=64, temperature=0.0, speculate=Speculation(tree=(29,)))
""",
}
REPORT = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--n-ctx", type=int, default=4096)
    args = parser.parse_args()
    table = Table("process", "peak RSS, MiB", "above llama-cpp-python")
    base = 0.0
    for name, code in CODE.items():
        script = COMMON + code + REPORT
        command = [sys.executable, "-c", script, str(quantized(args.type)), str(args.n_ctx)]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        base = base or peak
        table.add_row(name, f"{peak:.1f}", f"{peak - base:+.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
