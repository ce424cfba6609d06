"""The tested versions of llama-cpp-python: named alike everywhere, and what is used of the installed one is there.

What newer ones are held to is what is used, as the installed one has it. `.ci/versions` runs the tests with both ends
of the range.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

import maskprobe
from maskprobe.llamacpp import used
from maskprobe.llamacpp.fitting import layout, signature
from maskprobe.llamacpp.installed import TESTED_LLAMA_CPP, known_versions, requirement, version_numbers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LOW, HIGH = "0.3.35", "0.3.36"


def test_the_range_is_that_of_the_package() -> None:
    low, above = TESTED_LLAMA_CPP
    assert version_numbers(LOW) == low
    assert version_numbers(HIGH) == (*above[:2], above[2] - 1)
    assert known_versions() == f"{LOW} to {HIGH}"
    required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"llama-cpp-python>={LOW}" in required  # newer ones are taken, and checked


@pytest.mark.parametrize("name", ["README.md", "docs/install.md", "docs/rpc.md"])
def test_documents_name_the_range(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert LOW in text
    assert HIGH in text
    assert set(re.findall(r"llama-cpp-python>=[0-9][^\"`\s]*", text)) <= {requirement()}


def test_both_ends_are_tested() -> None:
    workflow = (ROOT / ".github" / "workflows" / "versions.yml").read_text(encoding="utf-8")
    assert f'llama-cpp-python: ["{LOW}", "{HIGH}"]' in workflow
    assert f"llama_cpp_python=={HIGH}\n" in (ROOT / "requirements-test.lock").read_text(encoding="utf-8")


def _attributes(*names: str) -> Iterator[tuple[ast.Attribute, Path]]:
    """Uses of attributes of what has one of the names, in the package and in bench."""
    for path in (*Path(maskprobe.__file__).parent.rglob("*.py"), *(ROOT / "bench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                yield node, path


def test_every_name_that_is_used_is_there() -> None:
    names = {node.attr for node, _ in _attributes("llama_cpp")}
    assert {"llama_decode", "LLAMA_LOAD_MODE_MMAP"} <= names
    assert {name for name in names if not hasattr(llama_cpp, name)} == set()


def test_newer_versions_are_held_to_all_that_is_used() -> None:
    package = Path(maskprobe.__file__).parent
    inside = [
        (node.attr, path.relative_to(package)) for node, path in _attributes("llama_cpp") if package in path.parents
    ]
    names = {name for name, path in inside if path.parts[0] != "bench"}  # which runs other programs beside ours
    listed = {*used.FUNCTIONS, *used.FIELDS, *used.LAYOUTS, *(name.split(".")[0] for name in used.NAMES)}
    header = (ROOT / "native" / "src" / "llama_api.h").read_text(encoding="utf-8")
    names |= set(re.findall(r"X\([^,]+, (llama_\w+),", header))
    assert "llama_synchronize" in names
    assert names - listed == {"llama_batch"}  # which the core checks


def test_what_newer_versions_are_held_to_is_what_this_one_has() -> None:
    assert {name: signature(getattr(llama_cpp, name)) for name in used.FUNCTIONS} == used.FUNCTIONS
    assert {name: layout(getattr(llama_cpp, name)) for name in used.LAYOUTS} == used.LAYOUTS
    without = {name for name in used.NAMES if signature(getattr(llama_cpp, name, None)) is not None}
    assert without == set()  # functions belong with their signatures


def test_every_field_that_is_set_is_there() -> None:
    # A ctypes struct takes any attribute: one that is no field of it would be set, and do nothing.
    structs = (
        llama_cpp.llama_model_params,
        llama_cpp.llama_context_params,
        llama_cpp.llama_model_quantize_params,
        llama_cpp.llama_batch,
    )
    fields = {name for struct in structs for name, *_ in struct._fields_}
    stored = [(node.attr, path) for node, path in _attributes("params", "batch") if isinstance(node.ctx, ast.Store)]
    names = {name for name, _ in stored}
    assert {"load_mode", "kv_unified", "embd"} <= names
    assert names <= fields
    listed = {name for struct in ("llama_model_params", "llama_context_params") for name in used.FIELDS[struct]}
    assert listed == {name for name, path in stored if Path(maskprobe.__file__).parent in path.parents}
