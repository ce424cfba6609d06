"""A generation in asyncio.to_thread leaves the event loop free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

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
