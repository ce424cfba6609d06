"""Names what the cost of a pass depends on besides the model: costs measured under one name hold under no other."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from ..llamacpp.devices import describe, local_gpus
from ..llamacpp.installed import llama_cpp
from ..llamacpp.options import LoadOptions


def setup_name(options: LoadOptions, kernels: str = "") -> str:
    """The machine, its devices and how passes use them; kernels: the instructions of ours, if they are used."""
    return ", ".join(_parts(options, kernels))


def _parts(options: LoadOptions, kernels: str) -> Iterator[str]:
    yield platform.node()
    yield f"llama-cpp-python {llama_cpp.__version__}"
    more = options.n_threads_batch != options.n_threads
    yield f"{options.n_threads} threads" + (f", {options.n_threads_batch} for several rows" if more else "")
    if kernels:
        yield f"{kernels} kernels"
    yield "flash attention" if options.flash_attn else "no flash attention"
    if options.type_k is not None or options.type_v is not None:
        yield f"KV cache of ggml types {options.type_k}, {options.type_v}"
    if not options.uses_devices():
        return
    layers = "all" if options.n_gpu_layers < 0 else options.n_gpu_layers
    names = [f"RPC {server}" for server in options.rpc_servers]
    names += [f"{its.name} ({its.description})" for its in map(describe, local_gpus())]
    yield f"{layers} layers on {' and '.join(names) or 'no GPU'}"
    if len(names) > 1:
        shares = "/".join(f"{share:g}" for share in options.tensor_split) or "even"
        yield f"split mode {options.split_mode}, main GPU {options.main_gpu}, shares {shares}"
    if not options.offload_kqv:
        yield "KV cache on the host"
