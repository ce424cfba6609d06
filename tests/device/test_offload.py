"""What is asked of llama.cpp for a device, and under which names its costs are kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskprobe import MaskProbeLlama
from maskprobe.drafting.setup import setup_name
from maskprobe.llamacpp.devices import Device
from maskprobe.llamacpp.model import Model
from maskprobe.llamacpp.options import LoadOptions

OPTIONS: dict[str, Any] = {"n_ctx": 256, "n_threads": 1}


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parameters of all contexts that are made."""
    made: list[Any] = []
    make = LoadOptions.context_params
    monkeypatch.setattr(LoadOptions, "context_params", lambda *a, **k: made.append(make(*a, **k)) or made[-1])
    return made


@pytest.mark.parametrize(("n_gpu_layers", "op_offload"), [(0, False), (-1, True), (1, True)])
def test_no_pass_goes_to_a_device_that_nobody_asked_for(
    n_gpu_layers: int, op_offload: bool, tiny_path: Callable[[str], Path], contexts: list[Any]
) -> None:
    MaskProbeLlama(tiny_path("llama"), n_gpu_layers=n_gpu_layers, **OPTIONS).close()
    assert [params.op_offload for params in contexts] == [op_offload]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """GPUs that the machine seems to have; a test may change them."""
    found = [Device("GPU0", "one of them", 1, 2)]
    monkeypatch.setattr("maskprobe.drafting.setup.local_gpus", lambda: range(len(found)))
    monkeypatch.setattr("maskprobe.drafting.setup.describe", lambda i: found[i])
    return found


def options_of(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> LoadOptions:
    """The options that a model is loaded with, without loading it."""
    taken: list[LoadOptions] = []

    def take(self: Model, path: Path, options: LoadOptions, n_sequences: int) -> None:
        taken.append(options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Model, "__init__", take)
        with pytest.raises(KeyboardInterrupt):
            MaskProbeLlama(path, **({"n_gpu_layers": -1} | OPTIONS | options))
    return taken[0]


def test_costs_of_one_setup_are_no_others(
    tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, gpus: list[Device]
) -> None:
    def name(**options: Any) -> str:
        return setup_name(options_of(tiny_path("llama"), monkeypatch, **options))

    names = [
        name(),
        name(n_threads=2),
        name(n_threads_batch=2),
        name(n_gpu_layers=0),
        name(n_gpu_layers=1),
        name(flash_attn=False),
        name(type_k=8, type_v=8),
        name(offload_kqv=False),
        setup_name(options_of(tiny_path("llama"), monkeypatch), "avx2"),
    ]
    gpus[0] = Device("GPU0", "another", 1, 2)
    names.append(name())
    gpus.append(Device("GPU1", "a second", 1, 2))
    names += [name(), name(tensor_split=[1, 3]), name(split_mode=0), name(split_mode=0, main_gpu=1)]
    gpus.clear()
    names.append(name())
    for one, other in itertools.combinations(names, 2):
        assert one != other


def test_a_device_is_no_part_of_a_setup_that_does_not_use_it(
    tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, gpus: list[Device]
) -> None:
    before = setup_name(options_of(tiny_path("llama"), monkeypatch, n_gpu_layers=0))
    gpus.clear()
    assert setup_name(options_of(tiny_path("llama"), monkeypatch, n_gpu_layers=0)) == before
