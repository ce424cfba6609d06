"""What drafts gain where RPC servers compute the model: plain and default decoding here and through workers, in turn.

Starts its own workers on this machine (their passes then share its cores), or uses servers that run already:

python bench/rpc.py --worker PATH/ggml-rpc-server --workers 2 --delay-ms 10
python bench/rpc.py --rpc 10.0.0.2:50052
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from delay import delayed
from maskprobe import MaskProbeLlama
from maskprobe.bench.prompts import read_prompts
from maskprobe.results import Stats
from models import quantized

HERE = Path(__file__).parent
MODES = {"plain": False, "auto": None}

Found = dict[str, list[tuple[list[int], Stats]]]  # tokens and figures by mode, prompt by prompt


@contextlib.contextmanager
def workers(program: Path, n: int, n_threads: int) -> Iterator[list[str]]:
    """Starts workers on free ports of this machine; yields their addresses once they listen."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for _ in range(n):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            command = [program, "--host", "127.0.0.1", "--port", str(port), "--threads", str(n_threads)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            addresses.append(f"127.0.0.1:{port}")
        for address in addresses:
            wait_for(address)
        yield addresses


def wait_for(address: str) -> None:
    """Returns when a worker accepts connections."""
    host, _, port = address.partition(":")
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, int(port))):
            return


def run(llm: MaskProbeLlama, prompts: Sequence[str], max_tokens: int) -> Found:
    """Tokens and figures by mode, prompt by prompt in turn."""
    found: Found = {mode: [] for mode in MODES}
    llm.generate("Hello", max_tokens=8)
    for prompt in prompts:
        ids = llm.apply_chat_template([{"role": "user", "content": prompt}])
        for mode, speculate in MODES.items():
            llm.reset(learned=True)
            out = llm.generate(ids, max_tokens=max_tokens, temperature=0.0, speculate=speculate, cache_prompt=False)
            found[mode].append((out.tokens, out.stats))
    return found


def compare(where: str, found: Found, here: Found) -> list[dict[str, Any]]:
    """Figures of a place by mode, beside plain decoding there and here."""
    figures: list[dict[str, Any]] = []
    for mode, runs in found.items():
        stats = [stats for _, stats in runs]
        tokens, passes = (sum(getattr(s, name) for s in stats) for name in ("predicted_n", "passes"))
        ms = sum(s.predicted_ms for s in stats)
        equal_there, equal_here = (
            sum(ours == theirs for (ours, _), (theirs, _) in zip(runs, other, strict=True))
            for other in (found["plain"], here["plain"])
        )
        speed = 1e3 * tokens / ms
        figures.append(
            {
                "where": where,
                "mode": mode,
                "tokens_per_pass": (tokens - len(runs)) / passes,
                "ms_per_pass": ms / passes,
                "tokens_per_second": speed,
                "of_plain": speed / (figures[0]["tokens_per_second"] if figures else speed),
                "equal_to_plain_there": equal_there,
                "equal_to_plain_here": equal_here,
                "prompts": len(runs),
            }
        )
    return figures


def table_of(figures: list[dict[str, Any]]) -> Table:
    table = Table("where", "mode", "tokens/pass", "ms/pass", "tokens/s", "of plain", "= plain there", "= plain here")
    for one in figures:
        table.add_row(
            one["where"],
            one["mode"],
            f"{one['tokens_per_pass']:.2f}",
            f"{one['ms_per_pass']:.1f}",
            f"{one['tokens_per_second']:.1f}",
            f"{one['of_plain']:.2f}",
            f"{one['equal_to_plain_there']} of {one['prompts']}",
            f"{one['equal_to_plain_here']} of {one['prompts']}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, help="the ggml-rpc-server to start")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rpc", action="append", default=[], help="a server that runs already; repeatable")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="reach the servers so much later, each way")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if bool(args.worker) == bool(args.rpc):
        parser.error("give --worker or --rpc")

    prompts = [case.text for case in read_prompts(HERE / "prompts.jsonl")][: args.limit]
    options = {"n_ctx": 512, "n_threads": args.n_threads}
    path = quantized(args.type)
    with MaskProbeLlama(path, **options) as llm:
        here = run(llm, prompts, args.max_tokens)
    with contextlib.ExitStack() as stack:
        servers = args.rpc or stack.enter_context(workers(args.worker, args.workers, args.n_threads))
        if args.delay_ms:
            servers = stack.enter_context(delayed(servers, args.delay_ms))
        llm = stack.enter_context(MaskProbeLlama(path, n_gpu_layers=-1, rpc_servers=servers, **options))
        there = run(llm, prompts, args.max_tokens)

    figures = compare("here", here, here)
    figures += compare(f"{len(servers)} RPC servers, {args.delay_ms:g} ms away", there, here)
    Console().print(table_of(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
