"""The CPU kernels: who may use them, what the check and its cache are worth, and what people see of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from kernel_use import HAS_KERNELS, n_used
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, cpu_kernels
from maskprobe.cli import app
from maskprobe.core import kernels
from maskprobe.cpu_kernels import self_test


def system_info() -> str:
    return str(llama_cpp.llama_print_system_info().decode())


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], cpu_kernels.Status]]:
    """Finds out anew, with an empty cache, who may use kernels; afterwards all is as before."""
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    before = cpu_kernels.status()
    monkeypatch.setattr(cpu_kernels, "_prepared", None)

    def find_out() -> cpu_kernels.Status:
        cpu_kernels._prepared = None
        return cpu_kernels.prepare()

    yield find_out
    kernels.allow(named(before.kernels), named(before.for_prompts))


def named(names: Iterable[str]) -> list[kernels.Kernel]:
    return [kernel for kernel in kernels.kernels() if kernel.name in set(names)]


def answered(output: str, code: int = 0, errors: str = "") -> Callable[..., Any]:
    """A check that ends like this, counts how often it was run and keeps its environment."""

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        run.calls += 1  # type: ignore[attr-defined]
        run.env = env  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(command, code, output, errors)

    run.calls = 0  # type: ignore[attr-defined]
    return run


def all_well(**wrong: str) -> str:
    differences = {kernel.name: wrong.get(kernel.name.replace(" ", "_")) for kernel in kernels.kernels()}
    return json.dumps({"differences": differences, "for_prompts": ["q4_1"]})


def reason_here(reason: str) -> str:
    """A reason that the check gives, or the one for which nothing is checked on this processor."""
    return reason if HAS_KERNELS else "there are none for this processor"


# --- who may use them ---------------------------------------------------------------------------------


def test_this_machine_has_them() -> None:
    status = cpu_kernels.status()
    if HAS_KERNELS:
        assert status.active
        assert status.reason is None
        assert status.refused == {}
        expected = {"q4_0", "q4_0 repacked", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q4_k repacked"}
        expected |= {
            "q5_k",
            "q6_k",
            "iq4_nl",
            "iq4_nl repacked",
            "iq4_xs",
            "mxfp4",
            "mxfp4 repacked",
            "f16",
            "f32",
            "bf16",
        }
        expected |= {"bf16", "q2_k repacked"} if "AVX512 = 1" in system_info() else {"bf16"}
        expected |= {f"attention {kind}" for kind in ("f16", "f16 capped", "q8_0", "q8_0 capped")}
        if status.instructions.startswith("neon"):
            expected = {"q4_0", "q4_0 repacked", "q4_1", "q5_0", "q8_0", "q8_0 repacked", "q4_k", "q4_k repacked"}
            expected |= {"q6_k", "q6_k repacked", "f32"}
        assert {name.removesuffix(" fused") for name in status.kernels} == expected
    else:
        assert not status.active
        assert "AVX2" in str(status.reason)


def test_the_environment_turns_them_off(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPROBE_CPU_KERNELS", "0")
    status = anew()
    assert (status.active, status.reason) == (False, "MASKPROBE_CPU_KERNELS=0")
    monkeypatch.setenv("MASKPROBE_CPU_KERNELS", "maybe")
    with pytest.raises(ValueError, match=r"MASKPROBE_CPU_KERNELS='maybe' is neither 0 nor 1: set it to 0"):
        anew()


def test_an_unknown_ggml_keeps_its_own(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "ggml_version", lambda: "9.9.9 (abc)")
    assert anew().reason.startswith("ggml 9.9.9 is not one whose insides are known: 0.20.0 (llama-cpp-python 0.3.35)")


def test_a_processor_without_instructions_says_so() -> None:
    code = (
        "from maskprobe.core.kernels import limit_instructions; limit_instructions('')\n"
        "from maskprobe import cpu_kernels; print(cpu_kernels.status())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("llama.cpp's own: there are none for this processor")


# --- the check ----------------------------------------------------------------------------------------


def test_the_check_finds_nothing_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskprobe.cpu_kernels.self_test"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    verdict = found["differences"]
    assert set(found["for_prompts"]) <= set(verdict)
    right = {name for name, why in verdict.items() if why is None}
    assert right == set(cpu_kernels.status().kernels) or not HAS_KERNELS
    assert {name.removesuffix(" fused") for name in right} == {name.removesuffix(" fused") for name in verdict}


def test_the_check_sees_a_wrong_bit() -> None:
    right = self_test.Product.compute

    def wrong(self: Any, x: Any, n_threads: int = 1) -> Any:
        out = right(self, x, n_threads)
        if len(x) == 5 and n_threads == 2:
            out.view(np.uint32)[4, -1] ^= 1
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test.Product, "compute", wrong)
        found = [
            str(self_test.difference(kernel, np.random.default_rng(0)))
            for kernel in kernels.kernels()
            if kernel.name.removesuffix(" fused") == "q8_0" and kernel.name in cpu_kernels.status().kernels
        ]
    kernels.set_thread(None)
    assert len(found) == int(HAS_KERNELS)
    assert all("5 rows" in why and "2 threads" in why for why in found)


def test_the_verdict_is_kept(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(all_well())
    monkeypatch.setattr(subprocess, "run", run)
    first, second = anew(), anew()
    assert first == second
    assert run.calls == int(HAS_KERNELS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (answered("", -11), "the check of the kernels was ended by SIGSEGV"),
        (answered("", 1, "Traceback\nBoom"), "the check of the kernels failed with code 1 and said: Boom"),
        (answered("nonsense"), "the check of the kernels said nothing that can be read: 'nonsense'"),
        (answered("[1]"), "the check of the kernels said nothing that can be read: '[1]'"),
        (answered("{}"), "the check of the kernels said nothing that can be read: '{}'"),
    ],
    ids=["crash", "failure", "nonsense", "a list", "another check"],
)
def test_a_check_that_fails_keeps_llama_cpps_own(
    anew: Any, monkeypatch: pytest.MonkeyPatch, run: Any, reason: str
) -> None:
    monkeypatch.setattr(subprocess, "run", run)
    assert str(anew()).startswith(f"llama.cpp's own: {reason_here(reason)}")
    assert anew().kernels == ()
    assert run.calls == int(HAS_KERNELS)  # the next process does not crash again


def late(command: list[str], **_: Any) -> None:
    raise subprocess.TimeoutExpired(command, 20.0)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (late, "timed out after 20.0 seconds"),
        (answered("", -9), "it was ended by signal 9"),
        (answered("", -15), "it was ended by signal 15"),
        (answered("", -63), "it was ended by signal 63"),
    ],
    ids=["too long", "out of memory", "shutdown", "a signal without a name"],
)
def test_what_says_nothing_of_the_kernels_is_tried_again(
    anew: Any, monkeypatch: pytest.MonkeyPatch, run: Any, why: str
) -> None:
    monkeypatch.setattr(subprocess, "run", run)
    reason = str(anew().reason)
    assert reason.startswith(reason_here("the check of the kernels could not be run to its end"))
    assert why in reason or not HAS_KERNELS
    monkeypatch.setattr(subprocess, "run", answered(all_well()))
    assert anew().active == HAS_KERNELS


def test_a_check_that_leaves_kernels_out_leaves_them_unused(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", answered(json.dumps({"differences": {}, "for_prompts": []})))
    status = anew()
    assert not status.active
    assert status.refused == {kernel.name: "it was not checked" for kernel in kernels.kernels()}
    assert str(status.reason).startswith(reason_here("not for q4_0: it was not checked"))


def test_of_two_roundings_one_is_enough(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On ARM, kernels come in two where llama.cpp's compiler decides how it rounds; one of them is bound to differ."""
    found = kernels.kernels()
    fused = [replace(kernel, index=len(found), name=f"{kernel.name} fused") for kernel in found[:1]]
    monkeypatch.setattr(kernels, "kernels", lambda: found + fused)
    for wrong in ("q4_0", "q4_0_fused"):
        monkeypatch.setattr(subprocess, "run", answered(all_well(**{wrong: "2 rows differ"})))
        monkeypatch.setenv("MASKPROBE_CACHE", os.environ["MASKPROBE_CACHE"] + wrong)
        status = anew()
        names = {kernel.name for kernel in found + fused}
        assert set(status.kernels) == (names - {wrong.replace("_fused", " fused")})
        assert status.refused == {}
        assert status.reason is None or not HAS_KERNELS


def test_a_program_that_is_no_python_starts_nothing(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Python of one's own in one file is; what is started all the same starts no other, and does not spin."""
    run = answered(all_well())
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert reason_here("the check of the kernels could not be run to its end (this program is no Python") in str(anew())
    assert run.calls == 0  # type: ignore[attr-defined]
    monkeypatch.delattr(sys, "frozen")
    assert anew().active == HAS_KERNELS
    if HAS_KERNELS:
        env = run.env  # type: ignore[attr-defined]
        assert (env["MASKPROBE_CPU_KERNELS"], env["OMP_WAIT_POLICY"]) == ("0", "passive")


def test_the_check_takes_no_modules_from_where_it_stands(tmp_path: Path) -> None:
    """A folder with modules of the standard library's names, and a program that does not look into it."""
    folder, program = tmp_path / "folder", tmp_path / "program.py"
    folder.mkdir()
    for name in ("json", "maskprobe"):
        (folder / f"{name}.py").write_text("raise RuntimeError('a file of somebody')")
    program.write_text("from maskprobe import cpu_kernels; print(cpu_kernels.status())")
    cached = {**os.environ, "MASKPROBE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=folder, env=cached, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(cpu_kernels.status())


def test_a_kernel_that_differs_is_refused_alone(
    anew: Any, monkeypatch: pytest.MonkeyPatch, model_path: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(subprocess, "run", answered(all_well(q8_0="4 rows differ")))
    status = anew()
    assert status.refused == ({"q8_0": "4 rows differ"} if HAS_KERNELS else {})
    assert status.for_prompts == (("q4_1",) if HAS_KERNELS else ())
    assert str(status.reason).startswith(reason_here("not for q8_0: 4 rows differ"))
    assert set(status.kernels) == {kernel.name for kernel in kernels.kernels()} - {"q8_0"}

    def used_by(file_type: str) -> dict[str, int]:
        before = [kernel.n_used() for kernel in kernels.kernels()]
        with MaskProbeLlama(model_path(file_type), n_ctx=256, n_threads=1) as llm:
            llm.generate("Hello", max_tokens=4)
        counted = zip(kernels.kernels(), before, strict=True)
        return {kernel.name: kernel.n_used() - n for kernel, n in counted}

    assert used_by("Q8_0").get("q8_0", 0) == 0
    assert (used_by("Q4_1").get("q4_1", 0) > 0) == HAS_KERNELS


# --- prompts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_type", ["Q4_0", "Q4_1"])
def test_a_prompt_leaves_what_llama_cpp_leaves(file_type: str, model_path: Callable[[str], Path], anew: Any) -> None:
    """Bit for bit, in batches that leave some rows over; in the cache, so also behind it."""
    names = {"Q4_0": "q4_0 repacked", "Q4_1": "q4_1"}
    llm = llama_cpp.Llama(str(model_path(file_type)), n_ctx=512, n_threads=1, flash_attn=True, verbose=False)
    ids = llm.tokenize(" ".join(str(i * i) for i in range(80)).encode())[:203]
    assert len(ids) == 203
    kernels.allow(named(cpu_kernels.status().kernels), named([names[file_type]]))
    found = []
    for use in (False, True):
        before = n_used()
        kernels.set_thread(use)
        llm.reset()
        llm.eval(ids)
        kernels.set_thread(False)
        llm.eval([ids[0]])
        found.append((n_used() > before, np.ctypeslib.as_array(llm._ctx.get_logits(), (llm.n_vocab(),)).tobytes()))
    kernels.set_thread(None)
    assert found == [(False, found[0][1]), (HAS_KERNELS, found[0][1])]
    llm.close()


# --- what people see ----------------------------------------------------------------------------------


def test_the_command_line_turns_them_off_and_shows_them(model_path: Callable[[str], Path]) -> None:
    path = str(model_path("Q4_1"))

    def said(*options: str) -> str:
        result = CliRunner().invoke(app, ["info", path, "--json", "--n-threads", "1", *options])
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout)["cpu_kernels"])

    assert said() == str(cpu_kernels.status())
    assert said("--no-cpu-kernels") == "llama.cpp's own: --no-cpu-kernels"


def test_doctor_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*options: str) -> dict[str, str]:
        result = CliRunner().invoke(app, ["doctor", "--json", "--n-threads", "1", *options])
        found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
        return dict(found["CPU kernels"])

    assert check()["found"] == str(cpu_kernels.status())
    assert check("--no-cpu-kernels") == {
        "name": "CPU kernels",
        "status": "ok",
        "found": "llama.cpp's own: --no-cpu-kernels",
        "remedy": None,
    }
    broken = cpu_kernels.Status("avx2", reason="the check of the kernels was ended by SIGSEGV")
    monkeypatch.setattr(cpu_kernels, "status", lambda: broken)
    assert check()["status"] == "warning"


def test_verbose_says_which_are_used(model_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    MaskProbeLlama(model_path("Q4_1"), n_ctx=256, n_threads=1, verbose=True).close()
    assert f"CPU kernels: {cpu_kernels.status()}" in capfd.readouterr().err


def test_a_value_that_is_no_flag_is_refused(model_path: Callable[[str], Path]) -> None:
    with pytest.raises(TypeError, match="cpu_kernels"):
        MaskProbeLlama(model_path("Q4_1"), cpu_kernels="yes")  # type: ignore[arg-type]


def test_the_cache_file_is_one_of_the_packages(anew: Any, tmp_path: Path) -> None:
    """A real check, from a process that finds nothing in the cache to one that finds it there."""
    status = anew()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == (1 if HAS_KERNELS else 0)
    assert all(name.startswith("cpu-kernels-") for name in files)
    code = "import subprocess; subprocess.run = None\nfrom maskprobe import cpu_kernels; print(cpu_kernels.status())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(status)
