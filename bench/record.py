"""Records answers for native/replay: tokens, and what the model and a mask behind each of them rank; before them the
texts that `maskprobe tune` had the model write, if any.

Plain greedy decoding in which a mask rides behind every token, at the table's mean, and is dropped again. Then

    cmake -S . -B build -DMASKPROBE_TESTS=ON && cmake --build build --target maskprobe_replay
    build/native/replay/maskprobe_replay ANSWERS 2:1.26 4:1.5 8:1.9 16:2.7 32:4.3 60:7.3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from maskprobe import MaskProbeLlama
from maskprobe.bench.prompts import choose, is_looping, read_prompts
from maskprobe.core.session import ADJACENCY_WIDTH as WIDTH
from maskprobe.drafting.store import load_texts
from models import quantized
from rows import Row, RowContext

MAGIC = b"MPR2"
GUESSES = 32  # of a mask, as the core reads them

Ranked = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def rank(logits: npt.NDArray[np.float32], n: int, *, among_all: bool) -> Ranked:
    """The n best tokens and their log-probabilities, among all tokens or among those listed."""
    best = np.argsort(-logits, kind="stable")[:n]
    of = logits if among_all else logits[best]
    norm = logits[best[0]] + np.log(np.exp(of - logits[best[0]]).sum())
    return best.astype(np.int32), (logits[best] - norm).astype(np.float32)


def record(
    context: RowContext, prompt: list[int], n_tokens: int, mask: npt.NDArray[np.float32]
) -> tuple[list[int], list[Ranked], list[Ranked]]:
    """An answer, and by its tokens what the model ranks next and what a mask guesses for the token after that."""
    context.begin(prompt, [0])
    token = int(context.logits(-1).argmax())
    output: list[int] = []
    ranked: list[Ranked] = []
    guessed: list[Ranked] = []
    while len(output) < n_tokens:
        output.append(token)
        at = len(prompt) + len(output) - 1
        context.decode([Row(token, at, [0]), Row(mask, at + 1, [0])])
        ranked.append(rank(context.logits(0), WIDTH, among_all=False))
        guessed.append(rank(context.logits(1), GUESSES, among_all=True))
        context.drop(at + 1)
        if context.ends(token):
            break
        token = int(ranked[-1][0][0])
    return output, ranked, guessed


def write(out: BinaryIO, *values: int) -> None:
    out.write(np.array(values, np.int32).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="file to write")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--limit", type=int, default=39)
    parser.add_argument("--max-tokens", type=int, default=128)
    args = parser.parse_args()

    with MaskProbeLlama(quantized(args.type), n_threads=1, n_ctx=2048) as llm, args.answers.open("wb") as out:
        cases = choose(llm, read_prompts(args.prompts), args.limit, 800)
        context = RowContext(llm, n_sequences=1)
        mask = context.start_vectors.table_mean_and_deviation[0]
        out.write(MAGIC)
        texts = load_texts(llm.model_path, context.n_vocab)
        write(out, context.n_vocab, WIDTH, GUESSES, len(texts), len(cases))
        for text in texts:
            write(out, len(text), *text)
        for _, prompt in track(cases, "prompts", console=Console(stderr=True), transient=True):
            output, ranked, guessed = record(context, prompt, args.max_tokens, mask)
            write(out, is_looping(output), len(prompt), *prompt, len(output), *output)
            for tokens, logps in (*ranked, *guessed):
                out.write(tokens.tobytes() + logps.tobytes())
        context.close()


if __name__ == "__main__":
    main()
