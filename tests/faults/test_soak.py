"""The long run of bench/soak.py, in short."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import pytest
from bench_scripts import bench_script

from maskprobe import MaskProbeLlama, Speculation


def test_twenty_requests_leave_an_object_as_it_was(model_path: Callable[[str], Path]) -> None:
    script = bench_script("soak")
    done = script.soak(model_path("Q4_0"), 20, compare_every=7, seed=3)
    assert set(done.kinds) == set(script.KINDS)
    assert done.kinds.total() + done.compared == 20
    assert done.compared == 3
    assert done.rss_warm > 0
    assert done.rss_end > 0


def test_a_cache_that_is_not_what_the_session_says_is_found_out(llm: MaskProbeLlama) -> None:
    script = bench_script("soak")
    llm.generate("Once upon a time", max_tokens=2)
    script.check_kv(llm)
    memory = llama_cpp.llama_get_memory(llm.engine.model.ctx)
    llama_cpp.llama_memory_seq_rm(memory, 0, llm.engine.session.n_cached() - 1, -1)
    with pytest.raises(AssertionError, match="sequence 0 is at"):
        script.check_kv(llm)
    llm.reset()
    script.check_kv(llm)


def test_a_conversation_goes_on_past_its_context(model_path: Callable[[str], Path], tmp_path: Path) -> None:
    script = bench_script("soak")
    done, path = script.Soaked(), model_path("Q4_0")
    with MaskProbeLlama(path, n_ctx=script.CHAT_CTX, n_threads=1, speculation=Speculation(budget=4)) as llm:
        conversation = script.Conversation(llm, random.Random(2), done, tmp_path / "chat.state")
        for number in range(32):
            role = "assistant" if number % 2 else "user"
            conversation.messages.append({"role": role, "content": f"This is message {number} of the conversation."})
        for compared in (False, True, True):
            conversation.turn(path if compared else None)
            script.check_kv(llm)
    assert done.kinds["turn"] == 3
    assert done.compared == 2
    assert done.shortened > 0
    assert conversation.messages[-1]["role"] == "assistant"
