"""A llama-cpp-python newer than the tested ones proves itself when a model is loaded, or drafts are left out."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from reference import PlainDecoder, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.core import self_test
from maskprobe.core.embeddings import Embeddings

NOISE = 5e-3  # F32 kernels round by the shape of the batch; logits spread by about 1
PROMPT = "the tree of the sea and the tree of the sea and the tree"
NOTE = "llama-cpp-python 0.3.37 is newer than those maskprobe was tested with (0.3.35 to 0.3.36); all checks passed"

# Functions that are there but do something else: what no declaration tells.
FAULTS = """
import ctypes
from maskprobe.llamacpp import installed
handle, number = ctypes.c_void_p, ctypes.c_int32
real = installed.function_address

def replace(name, does, result, *arguments):
    global callback
    callback = ctypes.CFUNCTYPE(result, *arguments)(does)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    installed.function_address = lambda asked: address if asked == name else real(asked)
"""
COPIES_NOTHING = 'replace("llama_memory_seq_cp", lambda *_: None, None, handle, number, number, number, number)'
REMOVES_NOTHING = 'replace("llama_memory_seq_rm", lambda *_: True, ctypes.c_bool, handle, number, number, number)'
REMOVES_FROM_FEW = """
remove = llama_cpp.llama_memory_seq_rm
few = lambda memory, sequence, first, end: sequence > 0 or remove(memory, sequence, first, end)
replace("llama_memory_seq_rm", few, ctypes.c_bool, handle, number, number, number)
"""
FLATTER_LOGITS = """
import numpy
get = llama_cpp.llama_get_logits_ith
def flatter(ctx, row):
    logits = numpy.ctypeslib.as_array(get(ctx, row), (258,))
    logits *= 0.5
    return logits.ctypes.data
replace("llama_get_logits_ith", flatter, handle, handle, number)
"""


def run_with(version: str, code: str, *arguments: str) -> str:
    """What a new process prints in which llama_cpp says that it is this version."""
    lines = f"import sys, warnings, llama_cpp\nllama_cpp.__version__ = {version!r}\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", lines, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
from maskprobe import MaskProbeLlama
from maskprobe.errors import BindingError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        with MaskProbeLlama(sys.argv[1], n_ctx=512, n_threads=1) as llm:
            print("why plain:", llm.drafting.why_none)
            print("cached:", llm.engine.session.n_cached())
            ids = llm.tokenize(sys.argv[2])
            print("tokens:", *llm.generate(ids, max_tokens=24, temperature=0.0).tokens)
        MaskProbeLlama(sys.argv[1], n_ctx=512, n_threads=1).close()
    except BindingError as error:
        print("BindingError", error)
for warning in caught:
    print("warning:", warning.message)
"""


@pytest.mark.parametrize("name", ["llama", "gemma3", "glm4", "lfm2", "mamba"])
def test_a_newer_version_that_passes_is_noted_once(name: str, tiny_path: Callable[[str], Path]) -> None:
    lines = run_with("0.3.37", LOADED, str(tiny_path(name)), PROMPT).splitlines()
    assert lines.count(f"warning: {NOTE}") == 1
    assert lines[:2] == ["why plain: None", "cached: 0"]


def test_tested_versions_are_not_noted_and_not_tested_again(tiny_path: Callable[[str], Path]) -> None:
    forbid = "from maskprobe.core import self_test\nself_test.why_no_drafts = None\n"
    assert "warning" not in run_with("0.3.35", forbid + LOADED, str(tiny_path("llama")), PROMPT)


@pytest.mark.parametrize(
    ("fault", "name"), [(COPIES_NOTHING, "llama"), (REMOVES_FROM_FEW, "llama"), (REMOVES_FROM_FEW, "gemma3")]
)
def test_drafts_that_come_out_wrong_are_left_out(fault: str, name: str, tiny_path: Callable[[str], Path]) -> None:
    lines = run_with("0.3.37", FAULTS + fault + LOADED, str(tiny_path(name)), PROMPT).splitlines()
    why, tokens = lines[0], lines[2].removeprefix("tokens: ").split()
    assert why.startswith("why plain: llama-cpp-python 0.3.37 was not tested, and drafts come out wrong with it (")
    assert 'pip install "llama-cpp-python>=0.3.35,<0.3.37"' in why
    assert lines[3] == f"warning: {name}.gguf is decoded plainly: {why.removeprefix('why plain: ')}"
    assert NOTE not in "\n".join(lines)
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1) as llm:
        assert_near_tie([int(token) for token in tokens], decoder.decode(llm.tokenize(PROMPT), 24), NOISE)
    decoder.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (REMOVES_NOTHING, "a plain pass failed: "),
        (FLATTER_LOGITS, "with plain passes, token 1 is off by "),
    ],
)
def test_plain_passes_that_come_out_wrong_are_an_error(fault: str, said: str, tiny_path: Callable[[str], Path]) -> None:
    out = run_with("0.3.37", FAULTS + fault + LOADED, str(tiny_path("llama")), PROMPT)
    assert f"BindingError llama-cpp-python 0.3.37 does not fit: llama.gguf is decoded wrongly with it ({said}" in out
    assert 'pip install "llama-cpp-python>=0.3.35,<0.3.37"' in out


def test_the_doctor_warns(tiny_path: Callable[[str], Path]) -> None:
    code = 'sys.argv = ["maskprobe", "doctor", "--n-threads", "1", "-m", sys.argv[1]]\nfrom maskprobe.cli import main\n'
    out = " ".join(run_with("0.3.37", f"{code}main()", str(tiny_path("llama"))).split())
    assert "0.3.37 (0.3.35 to 0.3.36 are tested)" in out
    assert "models are tested when they are loaded" in out
    assert '-> pip install "llama-cpp-python>=0.3.35,<0.3.37" # a tested version' in out


def test_rpc_alone_is_refused() -> None:
    code = """
    from maskprobe.errors import RpcError
    from maskprobe.llamacpp import rpc
    try:
        rpc.greet("127.0.0.1:1")
    except RpcError as error:
        print(error)
    """
    out = run_with("0.3.37", code)
    assert "the protocol of llama-cpp-python 0.3.37 is not known; use a tested version: " in out
    assert '"llama-cpp-python>=0.3.35,<0.3.37"' in out


@pytest.fixture
def llm(tiny_path: Callable[[str], Path]) -> MaskProbeLlama:
    return MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1)


def self_tested(llm: MaskProbeLlama) -> str | None:
    engine = llm.engine
    table = Embeddings(llm.model_path) if engine.drafting.masks else None
    return self_test.why_no_drafts(engine.session, engine.model, engine.drafting, table)


@pytest.mark.parametrize("n_batch", [512, 7, 2])
def test_the_self_test_fits_small_contexts(n_batch: int, tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=64, n_batch=n_batch, n_threads=1) as llm:
        assert llm.drafting.shape == "trees"
        assert self_tested(llm) is None


def test_the_self_test_leaves_nothing_behind(llm: MaskProbeLlama) -> None:
    history = Speculation(masks=0, sources=("history",), cost_curve={1: 1, 60: 1.1})

    def stats() -> tuple[int, int, int]:
        prompt = self_test._prompts(llm.engine.model.n_vocab)[0]  # whose answer the self-test teaches
        out = llm.generate(prompt, max_tokens=24, temperature=0.0, speculate=history, cache_prompt=False)
        return out.stats.passes, out.stats.rows, out.stats.draft_n_accepted

    with llm:
        assert self_tested(llm) is None
        assert llm.engine.session.n_cached() == 0
        first = stats()
        llm.reset(learned=True)
        assert first == stats()


def test_the_self_test_accepts_drafts_and_refuses_some(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def step(session: self_test.Session, out: self_test.Pass) -> None:
        real(session, out)
        passes.append((out.c.n_drafted, out.n_accepted))

    real = self_test.Session.step
    monkeypatch.setattr(self_test.Session, "step", step)
    with llm:
        assert self_tested(llm) is None
    assert len(passes) < 45
    assert sum(accepted for _, accepted in passes) >= 10
    assert any(drafted > accepted > 0 for drafted, accepted in passes)
    assert any(drafted > accepted == 0 for drafted, accepted in passes)


@pytest.mark.parametrize("how", ["drafts that are right", "drafts that are guessed", "drafts after a reused prompt"])
@pytest.mark.parametrize("what", ["token", "logp"])
def test_one_wrong_token_is_found(how: str, what: str, llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object, **options: object) -> self_test._Run:
        done = real(*args, **options)  # type: ignore[arg-type]
        if done.how != how:
            return done
        if what == "token":
            return dataclasses.replace(done, tokens=[*done.tokens[:3], (done.tokens[3] + 1) % 200, *done.tokens[4:]])
        return dataclasses.replace(done, logps=[*done.logps[:3], done.logps[3] - 0.5, *done.logps[4:]])

    real = self_test._run
    monkeypatch.setattr(self_test, "_run", run)
    with llm, warnings.catch_warnings():
        warnings.simplefilter("error")
        fault = self_tested(llm)
    assert fault is not None
    assert fault.startswith(f"with {how}, token 4 is off by ")
