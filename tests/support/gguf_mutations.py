"""Damaged copies of a model file, by number: the same number gives the same file. Run as a program it loads them.

    python gguf_mutations.py MODEL FOLDER SEED FIRST COUNT

prints the number of each file before it is loaded, then what became of it; a number with nothing after it killed the
process.
"""

from __future__ import annotations

import random
import struct
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import gguf

_NUMBERS = [0, 1, 2, 3, 7, 32, 255, 512, 513, 1024, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
_FLOATS = [0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan")]


@dataclass(frozen=True)
class Source:
    """A model file and where in it things are: (offset, size) of every part of every key and tensor description."""

    data: bytes
    keys: dict[str, list[tuple[int, int]]]
    tensors: list[list[tuple[int, int]]]
    data_offset: int


def source(path: Path) -> Source:
    """Reads a model file to damage."""
    reader = gguf.GGUFReader(path)
    base = reader.data.ctypes.data

    def places(field: gguf.ReaderField) -> list[tuple[int, int]]:
        return [(part.ctypes.data - base, part.nbytes) for part in field.parts if part.nbytes]

    keys = {name: places(field) for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = [places(tensor.field) for tensor in reader.tensors]
    return Source(path.read_bytes(), keys, tensors, reader.data_offset)


def mutate(model: Source, seed: int, number: int) -> bytes:
    """The damaged copy with this number."""
    rng = random.Random(f"{seed}/{number}")
    data = bytearray(model.data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        kind = rng.randrange(10)
        if kind == 0:
            del data[rng.randrange(len(data)) :]
        elif kind == 1:
            at = rng.randrange(model.data_offset)
            del data[at : at + rng.choice((1, 4, 8, 100))]
        elif kind == 2:
            at = rng.randrange(model.data_offset)
            data[at:at] = rng.randbytes(rng.choice((1, 4, 8, 100)))
        elif kind == 3:  # weights
            at = rng.randrange(model.data_offset, len(model.data) - 4)
            data[at : at + 4] = struct.pack("<f", rng.choice(_FLOATS))
        elif kind == 4:
            at, size = rng.choice(rng.choice(model.tensors))
            _overwrite(rng, data, at, size)
        elif kind == 5:
            data[rng.randrange(model.data_offset)] = rng.randrange(256)
        else:  # each key is as likely as any other, long as its array may be; its last parts are its value
            parts = model.keys[rng.choice(sorted(model.keys))]
            at, size = rng.choice(parts[-6:])
            _overwrite(rng, data, at, size)
    return bytes(data)


def with_key(path: Path, copy: Path, key: str, value: float | str) -> Path:
    """Writes a copy of a model with one key set, and returns the copy's path."""
    reader, arch = gguf.GGUFReader(path), "llama"
    writer = gguf.GGUFWriter(copy, arch)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in (key, "general.architecture"):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return copy


def _overwrite(rng: random.Random, data: bytearray, at: int, size: int) -> None:
    """A number at its limits, another text of the same length, or a flipped bit."""
    kind = rng.randrange(4)
    if kind == 0 or size not in (1, 2, 4, 8):
        at += rng.randrange(size)
        data[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == 1 and size == 4:
        data[at : at + 4] = struct.pack("<f", rng.choice(_FLOATS))
    elif kind == 2:
        number = int.from_bytes(data[at : at + size], "little") + rng.choice((-1, 1, 2))
        data[at : at + size] = (number % 256**size).to_bytes(size, "little")
    else:
        data[at : at + size] = (rng.choice(_NUMBERS) % 256**size).to_bytes(size, "little")


def load(path: Path) -> str:
    """Loads a file and generates a little; says what became of it."""
    from maskprobe import MaskProbeLlama, ModelError, Speculation

    warnings.simplefilter("ignore")
    try:
        with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
            llm.generate("the tree of the sea", max_tokens=3, temperature=0.0)
    except ModelError as error:
        return f"refused: {error}"
    except ValueError as error:  # a model without usable tokens cannot take the prompt
        return f"no prompt: {error}"
    return "works"


def main(path: str, folder: str, seed: str, first: str, count: str) -> None:
    model, copy = source(Path(path)), Path(folder) / "copy.gguf"
    for number in range(int(first), int(first) + int(count)):
        print(number, end=" ", flush=True)
        copy.write_bytes(mutate(model, int(seed), number))
        print(" ".join(load(copy).split()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
