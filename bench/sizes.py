"""What rows cost at real sizes: the cost curve of Qwen3-shaped models with random weights, and a projection.

Writes a GGUF file of the given size (random blocks; good for timing, never for text), measures what passes
of 1 to 60 rows take, and divides acceptance lengths that were measured on SmolLM2-135M by these costs. That is a
projection: a larger model accepts other drafts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation


@dataclass(frozen=True)
class Shape:
    """The shape of a Qwen3 model."""

    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    tied: bool
    n_vocab: int = 151936
    head_size: int = 128


SHAPES = {
    "0.6B": Shape(1024, 28, 16, 8, 3072, True),
    "1.7B": Shape(2048, 28, 16, 8, 6144, True),
    "4B": Shape(2560, 36, 32, 8, 9728, True),
    "8B": Shape(4096, 36, 32, 8, 12288, False),
}
TYPES = ("Q4_0", "Q8_0", "Q4_K_M")


@dataclass(frozen=True)
class Blocks:
    """Random blocks of a type: bytes with a small number where the scales are."""

    type: gguf.GGMLQuantizationType
    elements: int
    bytes: int
    halves: tuple[tuple[int, float], ...]  # where half floats stand, and their value


BLOCKS = {
    "Q4_0": Blocks(gguf.GGMLQuantizationType.Q4_0, 32, 18, ((0, 0.02 / 8),)),
    "Q8_0": Blocks(gguf.GGMLQuantizationType.Q8_0, 32, 34, ((0, 0.02 / 8),)),
    "Q4_K": Blocks(gguf.GGMLQuantizationType.Q4_K, 256, 144, ((0, 1e-4), (2, 1e-4))),
    "Q6_K": Blocks(gguf.GGMLQuantizationType.Q6_K, 256, 210, ((208, 1e-5),)),
}
# Tokens per pass by rows on SmolLM2-135M, all outputs and those that do not loop; docs/lab/rows.md.
ACCEPTANCE = {2: (1.44, 1.29), 4: (1.85, 1.51), 10: (2.38, 1.82), 30: (2.87, 2.13), 60: (3.11, 2.27)}


def random_blocks(rng: np.random.Generator, blocks: Blocks, rows: int, columns: int) -> np.ndarray:
    """Quantized weights, [rows, bytes of a row]."""
    out = rng.integers(0, 256, size=(rows * columns // blocks.elements, blocks.bytes), dtype=np.uint8)
    for at, value in blocks.halves:
        out[:, at : at + 2] = np.frombuffer(np.float16(value).tobytes(), dtype=np.uint8)
    return out.reshape(rows, -1)


def blocks_of(kind: str, name: str, n_layer: int) -> Blocks:
    """The blocks of a tensor; Q4_K_M gives some tensors more bits, as llama.cpp does."""
    if kind != "Q4_K_M":
        return BLOCKS[kind]
    if name in ("token_embd.weight", "output.weight"):
        return BLOCKS["Q6_K"]
    layer = int(name.split(".")[1])
    dearer = layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2
    return BLOCKS["Q6_K" if dearer and ("attn_v" in name or "ffn_down" in name) else "Q4_K"]


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes, rows first."""
    yield "token_embd.weight", (shape.n_vocab, shape.n_embd)
    yield "output_norm.weight", (shape.n_embd,)
    if not shape.tied:
        yield "output.weight", (shape.n_vocab, shape.n_embd)
    q, kv = shape.n_head * shape.head_size, shape.n_head_kv * shape.head_size
    for i in range(shape.n_layer):
        block = f"blk.{i}."
        yield block + "attn_norm.weight", (shape.n_embd,)
        yield block + "attn_q.weight", (q, shape.n_embd)
        yield block + "attn_k.weight", (kv, shape.n_embd)
        yield block + "attn_v.weight", (kv, shape.n_embd)
        yield block + "attn_output.weight", (shape.n_embd, q)
        yield block + "attn_q_norm.weight", (shape.head_size,)
        yield block + "attn_k_norm.weight", (shape.head_size,)
        yield block + "ffn_norm.weight", (shape.n_embd,)
        yield block + "ffn_gate.weight", (shape.n_ff, shape.n_embd)
        yield block + "ffn_up.weight", (shape.n_ff, shape.n_embd)
        yield block + "ffn_down.weight", (shape.n_embd, shape.n_ff)


def write(path: Path, shape: Shape, kind: str) -> None:
    writer = gguf.GGUFWriter(path, "qwen3", use_temp_file=True)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{i}" for i in range(shape.n_vocab)])
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(shape.n_vocab - 1)
    rng = np.random.default_rng(0)
    for name, size in tensors(shape):
        if len(size) == 1:
            writer.add_tensor(name, np.ones(size, dtype=np.float32))
        else:
            blocks = blocks_of(kind, name, shape.n_layer)
            writer.add_tensor(name, random_blocks(rng, blocks, *size), raw_dtype=blocks.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_model(folder: Path, size: str, kind: str) -> Path:
    """Writes a model of a size in SHAPES and a type in TYPES."""
    path = folder / f"random-{size}-{kind}.gguf"
    write(path, SHAPES[size], kind)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="1.7B")
    parser.add_argument("--type", choices=TYPES, default="Q4_0")
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--seconds", type=float, default=90.0, help="time for measuring")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(Path(folder), args.size, args.type)
        with MaskProbeLlama(path, n_ctx=1024, n_threads=args.n_threads, speculation=Speculation(budget=1)) as llm:
            costs = llm.engine.knowledge.measure_costs(args.seconds)
            title = f"random {args.size} Qwen3, {args.type}, {llm.n_threads()} threads"
    table = Table("rows", "ms", "plain passes", "tokens/pass (measured on 135M)", "projected speed", title=title)
    for rows, ms in costs.items():
        cost = ms / costs[1]
        accepted = ACCEPTANCE.get(rows)
        table.add_row(
            str(rows),
            f"{ms:.1f}",
            f"{cost:.2f}",
            "-" if accepted is None else f"{accepted[0]:.2f}, not looping {accepted[1]:.2f}",
            "-" if accepted is None else f"{accepted[0] / cost:.2f}, not looping {accepted[1] / cost:.2f}",
        )
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps({"title": title, "ms": costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
