"""What is installed and what says so: files, entry points, licence, one version."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import maskprobe
from maskprobe.llamacpp.installed import requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)


def test_the_installed_package_passes_the_check_of_wheels() -> None:
    done = run(str(ROOT / ".github" / "check_wheel.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"maskprobe {VERSION}: ")


def test_the_check_of_wheels_notices_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "maskprobe").mkdir()
    (tmp_path / "maskprobe" / "__init__.py").write_text("")
    script = ROOT / ".github" / "check_wheel.py"
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
    done = run("-c", code, str(tmp_path), str(script))
    assert done.returncode == 1
    assert "the wheel lacks ['bench/report.html', 'core/_abi.py', " in done.stderr


def test_the_version_is_said_once() -> None:
    assert version("maskprobe") == maskprobe.__version__ == VERSION
    for path in (*ROOT.glob("python/**/*.py"), *ROOT.glob("native/src/**/*.*"), ROOT / "CMakeLists.txt"):
        assert VERSION not in path.read_text(encoding="utf-8"), path


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == VERSION
    assert len(set(headings)) == len(headings)


def test_the_command_line_tells_versions() -> None:
    for module in ("maskprobe", "maskprobe.cli"):
        done = run("-m", module, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"maskprobe {VERSION}, llama-cpp-python {version('llama-cpp-python')}\n"


def test_licence() -> None:
    metadata = distribution("maskprobe").metadata
    assert PROJECT["project"]["license"] == "MIT"
    assert metadata["Name"] == "maskprobe"
    for name in PROJECT["project"]["license-files"]:
        assert (ROOT / name).read_text(encoding="utf-8").startswith("MIT License")


def test_pinned_versions_satisfy_what_is_required() -> None:
    pinned = {_normal(name): pin for name, pin in (line.split("==") for line in _pins())}
    project = PROJECT["project"]
    # Clients are tested in their newest versions.
    extras = [texts for name, texts in project["optional-dependencies"].items() if not name.startswith("clients")]
    wanted = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    for need in wanted:
        if need.name != "maskprobe" and need.marker is None:
            pin = pinned.get(_normal(need.name))
            assert pin is not None, f"{need} is not pinned: make requirements-test.lock anew, as it says"
            assert need.specifier.contains(pin), f"{need}, but {pin} is pinned"
    assert Requirement(requirement()).specifier.contains(pinned["llama-cpp-python"])


def _pins() -> list[str]:
    lines = (ROOT / "requirements-test.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[0-9][\w.+!-]*", pin) for pin in pins), "only names and versions"
    return pins


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/install.md",
        "docs/rpc.md",
        "docs/tutorial.md",
    ],
)
def test_files_that_documents_name_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"\b((?:docs|bench|native|tests|python|\.github)/[\w./-]+\.\w+)", text):
        assert (ROOT / path).exists(), f"{name} names {path}"


def test_every_module_of_clients_is_run_in_an_environment() -> None:
    environments = re.findall(r"^test_in (\S+) (\S+)$", (ROOT / ".ci" / "clients").read_text(encoding="utf-8"), re.M)
    extras = {name for name in PROJECT["project"]["optional-dependencies"] if name.startswith("clients")}
    assert {extra for extra, _ in environments} == extras
    named = [module for _, modules in environments for module in modules.split(",")]
    there = [path.stem.removeprefix("test_") for path in (ROOT / "tests" / "clients").glob("test_*.py")]
    assert sorted(named) == sorted(there)
