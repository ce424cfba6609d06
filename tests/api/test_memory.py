"""How much memory is taken where nobody says: by what the machine, or its control group, has left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from maskprobe import MaskProbeLlama
from maskprobe.core import lanes
from maskprobe.core.lanes import Lanes, fitting_lanes
from maskprobe.llamacpp import memory
from maskprobe.llamacpp.memory import available_bytes, default_cache_ram, left_bytes

GIB = 2**30
MACHINE = {"proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1024 kB\nMemAvailable: 8388608 kB\n"}  # 8 GiB
SECOND = {
    "proc/self/cgroup": "0::/box/job\n",
    "sys/fs/cgroup/box/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/box/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/box/memory.stat": f"anon 1\ninactive_file {GIB}\n",
    "sys/fs/cgroup/box/job/memory.max": "max\n",
    "sys/fs/cgroup/box/job/memory.current": "1\n",
    "sys/fs/cgroup/box/job/memory.stat": "inactive_file 0\n",
}
FIRST = {
    "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/seen/from/outside\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 0\n",
}
NO_BOUND = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        (MACHINE, 8),
        (MACHINE | SECOND, 2),  # files in memory that it would give up are not counted as used
        (MACHINE | FIRST, 2),
        (MACHINE | FIRST | NO_BOUND, 8),
        (MACHINE | SECOND | {"sys/fs/cgroup/box/memory.current": f"{6 * GIB}\n"}, 0),
        (MACHINE | {"proc/self/cgroup": "0::/\n"}, 8),
    ],
    ids=["machine", "second version", "first version", "first version without a bound", "nothing left", "outermost"],
)
def test_what_linux_says(tmp_path: Path, files: dict[str, str], gib: int) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path) == gib * GIB


def test_what_other_systems_say(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) >= available_bytes() > 0


def test_weights_in_main_memory_are_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    for i in (1, 2):
        (tmp_path / f"model-0000{i}-of-00002.gguf").write_bytes(bytes(100))
    first = tmp_path / "model-00001-of-00002.gguf"
    assert left_bytes(first, n_gpu_layers=0) == 800
    assert left_bytes(first, n_gpu_layers=-1) == 1000
    assert left_bytes(tmp_path / "none.gguf", n_gpu_layers=0) == 1000
    first.write_bytes(bytes(2000))
    assert left_bytes(first, n_gpu_layers=0) == 0


@pytest.mark.parametrize(("gib", "mib"), [(1, 102.4), (100, 8192), (0, 0)])
def test_a_tenth_is_for_conversations(
    monkeypatch: pytest.MonkeyPatch, tiny_path: Callable[[str], Path], gib: int, mib: float
) -> None:
    monkeypatch.setattr(memory, "left_bytes", lambda *_: gib * GIB)
    assert default_cache_ram(tiny_path("llama"), 0) == pytest.approx(mib)
    with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_parallel=2) as llm:
        assert llm.engine.model.options.cache_ram == pytest.approx(mib)


def test_what_is_said_is_taken(tiny_path: Callable[[str], Path]) -> None:
    for said in (0, 3.5):
        with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_parallel=2, cache_ram=said) as llm:
            assert llm.engine.model.options.cache_ram == said
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="cache_ram"):
            MaskProbeLlama(tiny_path("llama"), n_parallel=2, cache_ram=wrong)


# --- lanes -----------------------------------------------------------------------------------------------


def test_four_lanes_or_as_many_as_fit(monkeypatch: pytest.MonkeyPatch, model_path: Callable[[str], Path]) -> None:
    """SmolLM2 has 49,152 tokens: a row of logits takes 0.1875 MiB, a lane of 32 sequences 6 MiB."""
    path = model_path("Q4_0")

    def fitting(mib: float, n_leaves: int = 1) -> Lanes:
        monkeypatch.setattr(lanes, "left_bytes", lambda *_: int(mib * 2**20))
        return fitting_lanes(path, 0, n_leaves)

    assert fitting(240) == (4, None)
    assert fitting(239) == (3, "4 take 24 MiB for logits, and the model leaves 239 MiB of memory")
    assert fitting(121).n == 2
    assert fitting(119) == (1, "2 take 12 MiB for logits, and the model leaves 119 MiB of memory")
    assert fitting(0).n == 1
    assert fitting(10_000, n_leaves=63).n == 4
    assert fitting(10_000, n_leaves=80) == (3, "4 have no room for blocks of 80 leaves")
    assert fitting(10_000, n_leaves=200).n == 1
