"""Answers by the CPU kernels are those of plain decoding, for each type, with several threads, beside others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from kernel_use import HAS_KERNELS, n_used
from reference import PlainDecoder

from maskprobe import MaskProbeLlama, Speculation, cpu_kernels
from maskprobe.core import kernels

N = 32  # tokens of an answer


@pytest.mark.parametrize("n", [63, 64, 65])  # where llama.cpp goes over to tiles
def test_a_short_prompts_logits_are_llama_cpps(n: int, model_path: Callable[[str], Path]) -> None:
    ids = [7 * i % 1000 + 300 for i in range(n)]

    def logprobs(**options: Any) -> Any:
        with MaskProbeLlama(model_path("Q4_0"), n_ctx=256, n_threads=1, **options) as llm:
            out = llm.generate(ids, max_tokens=4, temperature=0.0, logprobs=5, speculate=False)
            assert out.logprobs is not None
            return [(one.logprob, one.top) for one in out.logprobs]

    assert logprobs() == logprobs(cpu_kernels=False)


@pytest.mark.parametrize("file_type", ["Q4_0", "Q4_1", "Q8_0", "Q4_K_M", "F16", "rare types"])
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


def test_types_that_few_files_have_are_multiplied(model_path: Callable[[str], Path]) -> None:
    before = [(kernel, kernel.n_used()) for kernel in kernels.kernels()]
    with MaskProbeLlama(model_path("rare types"), n_ctx=256, n_threads=1, speculation=Speculation(budget=12)) as llm:
        llm.generate("Hello", max_tokens=8)
    used = {kernel.name for kernel, n in before if kernel.n_used() > n}
    names = {kernel.name for kernel, _ in before}
    expected = {"q5_1", "q3_k", "q5_k", "iq4_nl repacked", "iq4_xs", "mxfp4 repacked", "bf16"}
    expected |= {"q2_k repacked" if "q2_k repacked" in names else "q2_k"}
    assert used >= expected & names


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


@pytest.mark.parametrize("file_type", ["Q4_0", "Q4_K_M", "F16"])
def test_threads_change_nothing_in_long_contexts(file_type: str, model_path: Callable[[str], Path]) -> None:
    """llama.cpp splits the cache among threads from 257 tokens on, and rounds otherwise then."""
    text = " ".join(f"On day {i} the keeper counted {i * i % 97} ships and {i % 7} gulls." for i in range(46))
    with MaskProbeLlama(model_path(file_type), n_ctx=2048, n_threads=2) as llm:
        ids = llm.tokenize(text)
        assert len(ids) > 512
        outs = [
            llm.generate(ids, max_tokens=24, temperature=0.0, speculate=speculate, cache_prompt=False).tokens
            for speculate in (None, False)
        ]
    decoder = PlainDecoder(model_path(file_type), n_ctx=2048)
    expected = list(decoder.decode(ids, 24).tokens)
    decoder.close()
    if HAS_KERNELS:
        assert outs == [expected, expected]
    else:
        assert all(len(out) == 24 for out in outs)
