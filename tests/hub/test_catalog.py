"""The catalogue of short names: its form, and that nonsense is refused."""

from __future__ import annotations

import re

import pytest

from maskprobe.hub import catalog
from maskprobe.hub.sources import Reference, parse

ARCHITECTURES = {"llama": "trees", "qwen3": "trees", "gemma3": "trees", "phi3": "trees", "gpt-oss": "trees"}
ARCHITECTURES |= dict.fromkeys(("qwen35", "lfm2", "granitehybrid"), "chains") | {"gemma4": "trees"}


def test_names_are_unique_and_can_be_typed() -> None:
    names = [entry.name for entry in catalog.entries()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) for name in names)
    assert {"smollm2", "qwen3-8b", "llama-3.2-1b", "gemma-3-4b", "mistral-7b", "phi-4-mini", "qwen3.5-9b"} <= set(names)


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_every_entry_has_the_form(entry: catalog.Entry) -> None:
    assert re.fullmatch(r"(I?Q\d(_\w+)?|BF16|F16|F32|MXFP4)", entry.quant)
    assert isinstance(entry.parameters, float)
    assert 0.1 <= entry.parameters <= 40
    assert entry.drafts == ARCHITECTURES[entry.architecture]
    assert entry.licence.strip() == entry.licence != ""
    if entry.gigabytes is not None:  # a weight takes between 2 and 10 bits, embeddings more
        assert 0.25 <= entry.gigabytes / entry.parameters <= 1.25
    if entry.repo is None:
        assert entry.name == "smollm2"
        assert parse(entry.name) is None
    else:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+-GGUF", entry.repo)
        assert parse(entry.name) == Reference(entry.repo, entry.quant)
        assert parse(f"{entry.name.upper()}:F16@v1") == Reference(entry.repo, "F16", "v1")


def test_close_names_are_suggested() -> None:
    assert catalog.close_names("Llama-3.2") == ["llama-3.2-3b", "llama-3.2-1b"]
    assert catalog.close_names("zzz") == []


def test_entries_must_be_complete_and_known() -> None:
    good = 'name = "a"\nquant = "Q8_0"\nparameters = 1.0\narchitecture = "llama"\nlicence = "MIT"\n'
    [entry] = catalog.read(f"[[model]]\n{good}")
    assert (entry.name, entry.repo, entry.gigabytes) == ("a", None, None)
    with pytest.raises(ValueError, match=r"'a'.*size"):
        catalog.read(f"[[model]]\n{good}size = 3\n")
    with pytest.raises(ValueError, match=r"missing.*licence"):
        catalog.read("[[model]]\n" + good.replace('licence = "MIT"\n', ""))
