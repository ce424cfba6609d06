"""Where a model's layers are computed, and what makes drafts dearer there; nothing where llama.cpp knows CPUs alone."""

from __future__ import annotations

from collections.abc import Iterator

from ..drafting import costs
from ..llama import MaskProbeLlama
from ..llamacpp.devices import describe, local_gpus
from ..llamacpp.installed import llama_cpp
from ..llamacpp.options import LoadOptions


def gpu_in_words(llm: MaskProbeLlama) -> str | None:
    """Whether drafts pay where the layers lie, and what is missing there, in one line; None without GPUs."""
    gpus = [describe(gpu) for gpu in local_gpus()]
    if not gpus:
        return None
    model = llm.engine.model
    n_layers = int(llama_cpp.llama_model_n_layer(model.model)) + 1  # llama.cpp counts the output as one
    on_gpu = n_layers if model.options.n_gpu_layers < 0 else min(model.options.n_gpu_layers, n_layers)
    found = f"{on_gpu} of {n_layers} layers on {', '.join(gpu.name for gpu in gpus)}"
    missing = "; ".join(_missing(model.options, n_layers - on_gpu)) or "nothing"
    return f"{found}; {_pays(llm)}; missing: {missing}"


def _pays(llm: MaskProbeLlama) -> str:
    if llm.drafting.shape == "none":
        return "nothing is drafted"
    measured = llm.engine.knowledge.measured_costs()
    least = costs.least_chance(costs.interpolate(measured, costs.MEASURED_ROWS))
    return "no draft pays" if least is None else f"drafts pay from a chance of {100 * least:.0f} % on"


def _missing(options: LoadOptions, n_on_cpu: int) -> Iterator[str]:
    if options.n_gpu_layers == 0:
        yield "layers on the GPU, by --n-gpu-layers -1"
        return
    if n_on_cpu:
        yield f"{n_on_cpu} layers, which the CPU computes and whose passes of 32 rows and more round differently"
    if not options.flash_attn:
        yield "flash attention, by flash_attn=True: without it every row reads the cache once more"
    if not options.offload_kqv:
        yield "the KV cache on the GPU, by offload_kqv=True"
