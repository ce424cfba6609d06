"""The rooms of the code: who may know whom, and how large a file or a function may be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lizard
import pytest

import maskprobe

ROOT = Path(__file__).parents[2]
MOST_LINES, MOST_TEST_LINES, MOST_FUNCTION_LINES = 400, 500, 60
SOURCES = ("python", "bench", "native/src", "native/kernels", "native/include", "native/fuzz", "native/replay")
TESTS = ("tests", "native/tests")


def check_imports(package: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter with the contracts of pyproject.toml on a copy of the package."""
    shutil.copytree(package, folder / "maskprobe", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_imports_go_down(tmp_path: Path) -> None:
    done = check_imports(Path(maskprobe.__file__).parent, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/session.py", "from ..drafting import costs", "Rooms lie in layers"),
        ("drafting/knowledge.py", "from ..generation import engine", "Rooms lie in layers"),
        ("llamacpp/model.py", "from ..core import session", "Rooms lie in layers"),
        ("generation/run.py", "from ..core.binding import lib", "Only the core speaks cffi"),
        ("chat/formats.py", "import cffi", "Only the core speaks cffi"),
        ("grammars/gbnf.py", "from .grammar import Grammar", "No circles within a room"),
    ],
)
def test_an_import_that_goes_up_is_found(module: str, line: str, contract: str, tmp_path: Path) -> None:
    package = tmp_path / "changed"
    shutil.copytree(Path(maskprobe.__file__).parent, package)
    path = package / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = check_imports(package, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^{contract} BROKEN", done.stdout, re.MULTILINE), done.stdout


def includes(path: Path) -> set[str]:
    return set(re.findall(r'^#include "(.*)"', path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    ("room", "may_include"),
    [
        # Drafting decides which tokens are tried; it knows neither llama.cpp nor the KV cache.
        ("native/src/drafting", r"drafting/\w+\.h|error\.h|maskprobe\.h"),
        # Kernels know bytes and floats.
        ("native/kernels", r"\w+\.h"),
    ],
)
def test_native_rooms_include_what_they_may(room: str, may_include: str) -> None:
    files = [path for path in (ROOT / room).iterdir() if path.suffix in {".h", ".cpp"}]
    assert len(files) > 10
    own = {path.name for path in files}
    for path in files:
        for name in includes(path):
            assert re.fullmatch(may_include, name), f"{path.relative_to(ROOT)} includes {name}"
            assert room != "native/kernels" or name in own, f"{path.relative_to(ROOT)} includes {name}"


def code_files(folders: tuple[str, ...]) -> list[Path]:
    suffixes = {".py", ".cpp", ".h"}
    return [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]


@pytest.mark.parametrize(("folders", "most"), [(SOURCES, MOST_LINES), (TESTS, MOST_TEST_LINES)])
def test_files_are_short(folders: tuple[str, ...], most: int) -> None:
    files = code_files(folders)
    assert len(files) > 100
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: n for name, n in lines.items() if n > most} == {}


def test_functions_are_short() -> None:
    found = [function for path in code_files(SOURCES) for function in lizard.analyze_file(str(path)).function_list]
    assert len(found) > 1000
    long = {f"{one.filename}: {one.name}": one.length for one in found if one.length > MOST_FUNCTION_LINES}
    assert long == {}
