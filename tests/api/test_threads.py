"""One object per thread: objects that work at the same time do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from maskprobe import MaskProbeLlama, Speculation

PROMPTS = ("the tree of the sea", "and then he said", "one on the other hand")


def test_objects_in_threads_do_not_disturb_each_other(tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path("llama")

    def answers(prompt: str) -> list[list[int]]:
        with MaskProbeLlama(path, n_ctx=512, n_threads=1) as llm:
            modes = (False, Speculation(tree=(6,)), Speculation(budget=8), Speculation(masks=2, tree="dynamic"))
            options = {"max_tokens": 24, "temperature": 0.7, "seed": 11}
            return [llm.generate(prompt, speculate=mode, **options).tokens for mode in modes]  # type: ignore[arg-type]

    alone = [answers(prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        for _ in range(3):
            assert list(pool.map(answers, PROMPTS)) == alone


def test_an_object_may_move_between_threads(tiny_path: Callable[[str], Path]) -> None:
    def answer(llm: MaskProbeLlama) -> list[int]:
        return llm.generate(PROMPTS[0], max_tokens=16, temperature=0.0, speculate=Speculation(tree=(6,))).tokens

    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1) as llm, ThreadPoolExecutor(1) as pool:
        here = answer(llm)
        assert pool.submit(answer, llm).result() == here
        assert answer(llm) == here
