"""Options of loading a model that commands share, and the arguments of MaskProbeLlama that they stand for.

The ranges are checked where models are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


@dataclass(kw_only=True)
class Machine:
    """What computes."""

    n_threads: Annotated[int | None, typer.Option(help="Threads; default: one per physical core.")] = None
    n_gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU, -1 = all.")] = 0
    rpc: Annotated[
        list[str] | None,
        typer.Option(
            help="host:port of a llama.cpp RPC server; with --n-gpu-layers it computes layers too. Repeatable."
        ),
    ] = None

    cpu_kernels: Annotated[
        bool, typer.Option(help="Let passes on the CPU take maskprobe's own kernels where they fit.")
    ] = True

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of MaskProbeLlama."""
        return {
            "n_threads": self.n_threads,
            "n_gpu_layers": self.n_gpu_layers,
            "rpc_servers": self.rpc,
            "cpu_kernels": self.cpu_kernels,
        }


@dataclass(kw_only=True)
class Loading(Machine):
    """What computes, and how much context there is."""

    n_ctx: Annotated[int, typer.Option(help="Context length in tokens.")] = 4096
    snapshot_memory: Annotated[
        float, typer.Option(help="Share of memory that snapshots of recurrent states may take, for drafts.")
    ] = 0.02

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of MaskProbeLlama."""
        return super().arguments() | {"n_ctx": self.n_ctx, "snapshot_memory": self.snapshot_memory}


@dataclass(kw_only=True)
class Adapted(Loading):
    """Also what changes the model: llama.cpp's options, for one adapter, one control vector and a chat template."""

    lora: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A LoRA adapter in GGUF form.")] = None
    lora_scaled: Annotated[
        list[str] | None, typer.Option(metavar="FILE:SCALE", help="The same, and how much of it is applied.")
    ] = None
    control_vector: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A control vector in GGUF form.")] = (
        None
    )
    control_vector_scaled: Annotated[
        list[str] | None, typer.Option(metavar="FILE:SCALE", help="The same, and how much of it is added.")
    ] = None
    control_vector_layer_range: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="START END", help="The first and the last layer that it is added to; default: all."),
    ] = None

    chat_template_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A Jinja template in place of the model's own.")
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of MaskProbeLlama."""
        lora, lora_scale = _only("--lora", self.lora, self.lora_scaled)
        vector, vector_scale = _only("--control-vector", self.control_vector, self.control_vector_scaled)
        if vector is None and self.control_vector_layer_range is not None:
            raise ValueError("--control-vector-layer-range needs a --control-vector")
        return super().arguments() | {
            "lora_path": lora,
            "lora_scale": lora_scale,
            "control_vector": vector,
            "control_vector_scale": vector_scale,
            "control_vector_layer_range": self.control_vector_layer_range,
            "chat_template": self._chat_template(),
        }

    def _chat_template(self) -> str | None:
        if self.chat_template_file is None:
            return None
        try:
            return self.chat_template_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--chat-template-file: cannot read {self.chat_template_file}: {error}") from error


def _only(option: str, files: list[str] | None, scaled: list[str] | None) -> tuple[str | None, float]:
    """The file that an option or its sibling with a scale names, and the scale."""
    found = [(file, 1.0) for file in files or ()] + [_split(option, value) for value in scaled or ()]
    if len(found) > 1:
        raise ValueError(f"{option} takes one file, got {', '.join(file for file, _ in found)}; leave all but one out")
    return found[0] if found else (None, 1.0)


def _split(option: str, value: str) -> tuple[str, float]:
    file, _, scale = value.rpartition(":")
    try:
        if file:
            return file, float(scale)
    except ValueError:
        pass
    raise ValueError(f"{option}-scaled takes FILE:SCALE, for example {file or value}:0.5, got {value!r}")
