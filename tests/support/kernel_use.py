"""Whether this machine has CPU kernels, and how often they were used."""

from __future__ import annotations

from maskprobe import cpu_kernels
from maskprobe.core import kernels

# Processors without AVX2, or ARM's dot products, have no kernels; there the same tests say that nothing changes.
HAS_KERNELS = bool(cpu_kernels.status().instructions)


def n_used() -> int:
    return sum(kernel.n_used() for kernel in kernels.kernels())
