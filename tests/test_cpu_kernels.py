"""The CPU kernels: who may use them, what the check and its cache are worth, and that answers stay as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, Speculation, cpu_kernels, kernel_check
from maskprobe.binding import lib
from maskprobe.cli import app
from reference import PlainDecoder

N = 48  # tokens of an answer
# Processors without AVX2 have none of the kernels; there the same tests say that nothing changes.
HAS_KERNELS = bool(cpu_kernels.status().instructions)
needs_kernels = pytest.mark.skipif(not HAS_KERNELS, reason="this processor lacks AVX2, so there are no kernels")


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], cpu_kernels.Status]]:
    """Finds out anew, with an empty cache, who may use kernels; afterwards all is as before."""
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    allowed = lib.mp_kernels_allowed()
    monkeypatch.setattr(cpu_kernels, "_prepared", None)

    def find_out() -> cpu_kernels.Status:
        cpu_kernels._prepared = None
        return cpu_kernels.prepare()

    yield find_out
    lib.mp_kernels_allow(allowed)


def answered(output: str, code: int = 0, errors: str = "") -> Callable[..., Any]:
    """A check that ends like this, and counts how often it was run."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        run.calls += 1  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(command, code, output, errors)

    run.calls = 0  # type: ignore[attr-defined]
    return run


def all_well(**wrong: str) -> str:
    return json.dumps({kernel.name: wrong.get(kernel.name.replace(" ", "_")) for kernel in kernel_check.kernels()})


def n_used() -> int:
    return sum(lib.mp_kernels_n_used(kernel.index) for kernel in kernel_check.kernels())


# --- who may use them ---------------------------------------------------------------------------------


def test_this_machine_has_them() -> None:
    status = cpu_kernels.status()
    if HAS_KERNELS:
        assert status.active
        assert status.reason is None
        assert status.refused == {}
        expected = {"q4_0", "q4_0 repacked", "q4_1", "q5_0", "q8_0", "q4_k", "q4_k repacked", "q6_k", "f16", "f32"}
        assert set(status.kernels) == expected
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
        "from maskprobe.binding import lib; lib.mp_kernels_limit_instructions(b'')\n"
        "from maskprobe import cpu_kernels; print(cpu_kernels.status())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("llama.cpp's own: there are none for this processor")


# --- the check ----------------------------------------------------------------------------------------


def test_the_check_finds_nothing_wrong() -> None:
    done = subprocess.run([sys.executable, "-m", "maskprobe.kernel_check"], capture_output=True, text=True, check=True)
    verdict = json.loads(done.stdout)
    assert set(verdict) == set(cpu_kernels.status().kernels) or not HAS_KERNELS
    assert set(verdict.values()) <= {None}


@needs_kernels
def test_the_check_sees_a_wrong_bit() -> None:
    kernel = next(kernel for kernel in kernel_check.kernels() if kernel.name == "q8_0")
    right = kernel_check.Product.compute

    def wrong(self: Any, x: Any, n_threads: int = 1) -> Any:
        out = right(self, x, n_threads)
        if len(x) == 5 and n_threads == 2:
            out.view(np.uint32)[4, -1] ^= 1
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_check.Product, "compute", wrong)
        why = kernel_check.difference(kernel, np.random.default_rng(0))
    lib.mp_kernels_set_thread(-1)
    assert why is not None
    assert "5 rows" in why
    assert "2 threads" in why


def test_the_verdict_is_kept(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = answered(all_well())
    monkeypatch.setattr(subprocess, "run", run)
    first, second = anew(), anew()
    assert first == second
    assert run.calls == (1 if HAS_KERNELS else 0)  # type: ignore[attr-defined]


@needs_kernels
@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (answered("", -11), "the check of the kernels was ended by SIGSEGV"),
        (answered("", 1, "Traceback\nBoom"), "the check of the kernels failed with code 1 and said: Boom"),
        (answered("nonsense"), "the check of the kernels said nothing that can be read: 'nonsense'"),
        (answered("[1]"), "the check of the kernels said nothing that can be read: '[1]'"),
    ],
    ids=["crash", "failure", "nonsense", "a list"],
)
def test_a_check_that_fails_keeps_llama_cpps_own(
    anew: Any, monkeypatch: pytest.MonkeyPatch, run: Any, reason: str
) -> None:
    monkeypatch.setattr(subprocess, "run", run)
    assert str(anew()) == f"llama.cpp's own: {reason}"
    assert anew().kernels == ()
    assert run.calls == 1  # the next process does not crash again


@needs_kernels
def test_a_check_that_takes_too_long_is_tried_again(anew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 20.0)

    monkeypatch.setattr(subprocess, "run", late)
    assert "could not be run to its end" in anew().reason
    monkeypatch.setattr(subprocess, "run", answered(all_well()))
    assert anew().active


@needs_kernels
def test_a_kernel_that_differs_is_refused_alone(
    anew: Any, monkeypatch: pytest.MonkeyPatch, model_path: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(subprocess, "run", answered(all_well(q8_0="4 rows differ")))
    status = anew()
    assert status.refused == {"q8_0": "4 rows differ"}
    assert status.reason == "not for q8_0: 4 rows differ"
    assert "q8_0" not in status.kernels
    assert "q4_1" in status.kernels
    refused = next(kernel.index for kernel in kernel_check.kernels() if kernel.name == "q8_0")
    before, all_before = lib.mp_kernels_n_used(refused), n_used()
    with MaskProbeLlama(model_path("Q4_1"), n_ctx=256, n_threads=1) as llm:
        llm.generate("Hello", max_tokens=4)
    assert lib.mp_kernels_n_used(refused) == before
    assert n_used() > all_before


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_type", ["Q4_0", "Q4_1", "Q8_0", "Q4_K_M", "F16"])
def test_answers_are_plain_decodings(
    file_type: str, model_path: Callable[[str], Path], prompts: dict[str, str]
) -> None:
    """K-quants and floats too, whose rows among others llama.cpp's own kernels round differently."""
    path = model_path(file_type)
    decoder = PlainDecoder(path, n_ctx=1024)
    before = n_used()
    with MaskProbeLlama(path, n_ctx=1024, n_threads=1, speculation=Speculation(budget=12)) as llm:
        for text in prompts.values():
            ids = llm.tokenize(text)
            expected = decoder.decode(ids, N, temperature=0.0).tokens
            for speculate in (True, Speculation(budget=40), False):
                got = llm.generate(ids, max_tokens=N, temperature=0.0, speculate=speculate, cache_prompt=False)
                assert got.tokens == expected
    assert (n_used() > before) == HAS_KERNELS
    decoder.close()


def test_an_object_decides_for_itself(model_path: Callable[[str], Path]) -> None:
    """One with kernels and one without, at the same time, and a third that is llama_cpp's alone."""
    path = model_path("Q4_1")
    with (
        MaskProbeLlama(path, n_ctx=512, n_threads=1) as ours,
        MaskProbeLlama(path, n_ctx=512, n_threads=1, cpu_kernels=False) as theirs,
    ):
        before = n_used()
        expected = theirs.generate("The sea", max_tokens=24, temperature=0.0).tokens
        assert n_used() == before
        assert ours.generate("The sea", max_tokens=24, temperature=0.0).tokens == expected
        assert (n_used() > before) == HAS_KERNELS

        answers: list[list[int]] = []
        threads = [
            threading.Thread(
                target=lambda llm=llm: answers.append(llm.generate("The sea", max_tokens=24, temperature=0.0).tokens)
            )
            for llm in (ours, theirs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [expected, expected]


def test_programs_of_llama_cpp_alone_can_have_them(model_path: Callable[[str], Path]) -> None:
    llm = llama_cpp.Llama(str(model_path("Q4_1")), n_ctx=256, n_threads=1, verbose=False)

    def answer() -> tuple[str, int]:
        before = n_used()
        llm.reset()
        text = llm("Once upon a time", max_tokens=12, temperature=0.0)["choices"][0]["text"]
        return text, n_used() - before

    text, used = answer()
    assert used == 0
    try:
        status = cpu_kernels.install()
        assert status.installed == HAS_KERNELS
        again, used = answer()
        assert again == text
        assert (used > 0) == HAS_KERNELS
    finally:
        cpu_kernels.remove()
    assert not cpu_kernels.status().installed
    assert answer() == (text, 0)
    llm.close()


def test_forks_and_late_objects(model_path: Callable[[str], Path]) -> None:
    """Models come and go; what is loaded later, in a child too, has the kernels as well."""
    code = (
        "import os, sys\n"
        "from maskprobe import MaskProbeLlama\n"
        "def answer():\n"
        "    with MaskProbeLlama(sys.argv[1], n_ctx=256, n_threads=1) as llm:\n"
        "        return llm.generate('Hello', max_tokens=8, temperature=0.0).text\n"
        "first = answer()\n"
        "assert answer() == first\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if answer() == first else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(model_path("Q4_0"))], timeout=120)
    assert done.returncode == 0


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
