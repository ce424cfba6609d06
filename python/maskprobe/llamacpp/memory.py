"""How much memory a process may still take: what the machine has left, or less where a control group bounds it.

Knows Linux' files; elsewhere what ggml says of the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..splits import split_paths
from .devices import cpu

_CACHE_SHARE, _MOST_CACHE = 0.1, 8 * 2**30
_NO_BOUND = 2**60  # control groups of the first version say a number near 2 ** 63


def default_cache_ram(model: Path, n_gpu_layers: int) -> float:
    """MiB for texts that have to leave the cells: a tenth of the memory that a model leaves, 8 GiB at most."""
    return min(_CACHE_SHARE * left_bytes(model, n_gpu_layers), _MOST_CACHE) / 2**20


def left_bytes(model: Path, n_gpu_layers: int) -> int:
    """Memory that is left once a model file lies in it; all of its layers, or none, count as there."""
    weights = sum(part.stat().st_size for part in split_paths(model) if part.is_file()) if n_gpu_layers == 0 else 0
    return max(0, available_bytes() - weights)


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may still take. root: where proc and sys lie."""
    machine = _machine(root / "proc/meminfo")
    return min([cpu().free_bytes if machine is None else machine, *_groups(root)])


def _machine(meminfo: Path) -> int | None:
    """What Linux has left for programs, with caches that it would give up."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _groups(root: Path) -> Iterator[int]:
    """What the control groups of this process have left, the outer ones too."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            yield from _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "sys/fs/cgroup/memory", path, *names)


def _left(mount: Path, path: str, bound: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Of a group and those around it. In a container the outer ones cannot be seen: its own is the mount itself."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        try:
            most = int((folder / bound).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / usage).read_text()) - int(statistics.get(reclaimable, 0))
        except (OSError, ValueError):  # no such file, or "max"
            pass
        else:
            if most < _NO_BOUND:
                yield max(0, most - used)
        if folder == mount:
            return
