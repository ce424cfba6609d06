"""A generation in asyncio.to_thread leaves the event loop free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskprobe import BusyError, MaskProbeLlama, Speculation

PROMPT = "the tree of the sea and the tree"
DEADLINE = 60.0


def test_the_event_loop_runs_while_tokens_come(tiny_path: Callable[[str], Path]) -> None:
    async def main(llm: MaskProbeLlama) -> None:
        loop = asyncio.get_running_loop()
        n_ticks = 0

        async def tick() -> None:
            nonlocal n_ticks
            n_ticks += 1
            # The object is in use: a second entry from the loop is told so.
            with pytest.raises(BusyError):
                llm.generate(PROMPT, max_tokens=1)

        # Every pass waits until the loop has run: if the loop were held up, this would time out.
        def before_pass() -> None:
            asyncio.run_coroutine_threadsafe(tick(), loop).result(DEADLINE)

        out = await asyncio.to_thread(llm.generate, PROMPT, max_tokens=24, temperature=0.0, before_pass=before_pass)
        assert n_ticks == out.stats.passes + 1  # and the prompt
        again = llm.generate(PROMPT, max_tokens=24, temperature=0.0, cache_prompt=False)
        assert again.tokens == out.tokens

    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, speculation=Speculation(tree=(6,))) as llm:
        asyncio.run(main(llm))


def test_tasks_share_the_object(tiny_path: Callable[[str], Path]) -> None:
    async def main(llm: MaskProbeLlama) -> None:
        expected = [llm.generate(PROMPT[i:], max_tokens=30, temperature=0.8, seed=i + 1).tokens for i in range(4)]

        async def answer(i: int) -> list[int]:
            return [
                token
                async for chunk in llm.astream(PROMPT[i:], max_tokens=30, temperature=0.8, seed=i + 1)
                for token in chunk.tokens
            ]

        assert max(map(len, expected)) == 30
        assert await asyncio.gather(*(answer(i) for i in range(4))) == expected
        out = await llm.agenerate(PROMPT, max_tokens=30, temperature=0.8, seed=1)
        assert out.tokens == expected[0]
        with pytest.raises(ValueError, match="max_tokens"):
            llm.astream(PROMPT, max_tokens=0)

    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, n_parallel=3, queue=True) as llm:
        asyncio.run(asyncio.wait_for(main(llm), DEADLINE))


def test_a_task_that_is_cancelled_frees_its_seat(tiny_path: Callable[[str], Path]) -> None:
    async def main(llm: MaskProbeLlama) -> None:
        seen = asyncio.Event()
        endless: Any = {"logit_bias": dict.fromkeys(llm.engine.model.vocab.ends(), -100.0), "max_tokens": 400}

        async def read() -> None:
            async for _ in llm.astream(PROMPT, **endless, temperature=1.0):
                seen.set()

        task = asyncio.create_task(read())
        await seen.wait()
        stream = llm.astream(PROMPT, max_tokens=400)
        with pytest.raises(BusyError):
            await anext(stream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        n_passes = 0

        def before_pass() -> None:
            nonlocal n_passes
            n_passes += 1

        async for _ in (half := llm.astream(PROMPT, **endless, speculate=False, before_pass=before_pass)):
            break
        await half.aclose()
        assert 0 < n_passes < 200
        assert len(llm.generate(PROMPT, max_tokens=3).tokens) == 3

    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1) as llm:
        asyncio.run(asyncio.wait_for(main(llm), DEADLINE))
