"""Who gets which seat of an object, and who waits for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from maskprobe import BusyError, ClosedError, MaskProbeLlama

TEXT = "the tree of the sea and the tree of the sea and the tree"
DEADLINE = 60.0


@pytest.fixture
def tiny(tiny_path: Callable[[str], Path]) -> Iterator[Callable[..., MaskProbeLlama]]:
    """Loads tiny models that are closed at the end."""
    loaded = []

    def load(name: str = "llama", **options: Any) -> MaskProbeLlama:
        loaded.append(MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1, seed=1, **options))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_prompt_gets_the_seat_of_its_text_or_the_oldest(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny(n_parallel=3)
    seats = llm.engine.seats
    texts = ["the tree of the sea " * 2, "one on the other hand", "and then he said"]
    prompts = [llm.tokenize(text) for text in texts]
    for prompt in prompts:
        llm.generate(prompt, max_tokens=2, temperature=0.0)
    order = sorted(seats.all, key=lambda seat: seat.used)
    assert [seat.tokens[: len(prompt)] for seat, prompt in zip(order, prompts, strict=True)] == prompts
    assert seats.choose(seats.all, llm.tokenize("who?")) is order[0]
    assert seats.choose(seats.all, [*prompts[1], 9]) is order[1]
    few = prompts[1][: len(prompts[1]) // 3]
    assert seats.choose(seats.all, [*few, 9, 9]) is order[0], "most of the text there would be lost"
    assert seats.choose(order[2:], [*prompts[1], 9]) is order[2], "the only free one"


def test_who_has_a_seat_may_wait_for_another_ones(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny(n_parallel=2, queue=True)
    mine = llm.stream(TEXT, max_tokens=30)
    next(mine)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        stream = llm.stream(TEXT, max_tokens=30)
        next(stream)
        begun.set()
        assert go_on.wait(DEADLINE)
        stream.close()

    with ThreadPoolExecutor(1) as other:
        held = other.submit(hold)
        assert begun.wait(DEADLINE)
        timer = threading.Timer(0.05, go_on.set)
        timer.start()
        assert len(llm.generate(TEXT, max_tokens=3).tokens) == 3
        held.result(DEADLINE)
    again = llm.stream(TEXT, max_tokens=30)
    next(again)
    with pytest.raises(BusyError):  # both are this thread's: nobody else could end them
        llm.generate(TEXT, max_tokens=3)
    for stream in (mine, again):
        stream.close()


def test_who_has_the_whole_object_does_not_wait_for_itself(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny(queue=True)
    refused: list[BusyError] = []

    def generate_within() -> None:
        with llm._lifetime.use(), pytest.raises(BusyError) as busy:
            llm.generate(TEXT, max_tokens=1)
        refused.append(busy.value)

    thread = threading.Thread(target=generate_within, daemon=True)  # which would wait for ever
    thread.start()
    thread.join(DEADLINE)
    assert len(refused) == 1


def test_as_many_wait_for_one_seat_as_are_allowed(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny("mamba", n_parallel=3)
    stream = llm.stream(TEXT, max_tokens=30)
    next(stream)

    def answer() -> int:
        return len(llm.generate(TEXT, max_tokens=3).tokens)

    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(answer) for _ in range(2)]
        wait_until(lambda: len(llm._lifetime._waiting) == 2)
        with pytest.raises(BusyError, match="3 times at once"):
            threads.submit(answer).result(DEADLINE)
        stream.close()
        assert [one.result(DEADLINE) for one in waiting] == [3, 3]


def test_who_comes_later_does_not_pass_those_who_wait(tiny: Callable[..., MaskProbeLlama]) -> None:
    """Nor when the seat is free already, and the one whose turn it is has not woken yet."""
    llm = tiny(queue=True)
    lifetime = llm._lifetime
    ended: list[str] = []

    def answer(name: str) -> None:
        with lifetime.sit([1]):
            ended.append(name)

    with ThreadPoolExecutor(2) as threads:
        with lifetime.sit([1]):
            first = threads.submit(answer, "first")
            wait_until(lambda: len(lifetime._waiting) == 1)
            with lifetime._changed:  # a seat is free, and nobody has been told
                free, lifetime._free = lifetime._free, list(llm.engine.seats.all)
                second = threads.submit(answer, "second")
            wait_until(lambda: len(lifetime._waiting) == 2)
            lifetime._free = free
        first.result(DEADLINE)
        second.result(DEADLINE)
    assert ended == ["first", "second"]


def test_a_model_that_was_closed_meanwhile_is_not_used(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny()
    stream = llm.stream(TEXT, max_tokens=3)
    llm.close()
    with pytest.raises(ClosedError):
        next(stream)


def test_an_object_that_nobody_holds_frees_its_model(tiny_path: Callable[[str], Path]) -> None:
    llm = MaskProbeLlama(tiny_path("llama"), n_ctx=128, n_threads=1)
    closed: list[bool] = []
    engine = llm.engine
    close = engine.close
    engine.close = lambda: closed.append(True) or close()  # type: ignore[method-assign,func-returns-value]
    del llm
    assert closed == [True]


def test_what_is_called_within_a_pass_cannot_generate(tiny: Callable[..., MaskProbeLlama]) -> None:
    """It would wait for itself."""
    llm = tiny(n_parallel=3)
    said: list[str] = []

    def answer() -> int:
        begun = llm.stream(TEXT, max_tokens=30)
        next(begun)

        def processor(ids: Any, logits: Any) -> Any:
            for call in (lambda: llm.generate(TEXT, max_tokens=1), llm.engine.seats.figures, lambda: next(begun)):
                with pytest.raises(BusyError, match="within a pass") as refused:
                    call()
                said.append(str(refused.value))
            begun.close()
            return logits

        return len(llm.generate(TEXT, max_tokens=1, logits_processor=processor).tokens)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(answer).result(DEADLINE) == 1
    assert len(said) == 3


def test_a_generation_that_is_ended_within_a_pass_is_ended_after_it(
    tiny: Callable[..., MaskProbeLlama], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = tiny(n_parallel=2)
    begun = llm.stream(TEXT, max_tokens=30)
    next(begun)
    [seat] = (seat for seat in llm.engine.seats.all if seat.thread)
    events: list[str] = []
    end = seat.session.end

    def ended() -> None:
        events.append("ended")
        end()

    def processor(ids: Any, logits: Any) -> Any:
        begun.close()
        events.append("within a pass")
        return logits

    monkeypatch.setattr(seat.session, "end", ended)
    assert len(llm.generate(TEXT, max_tokens=1, logits_processor=processor).tokens) == 1
    assert events == ["within a pass", "ended"]
    assert not any(seat.thread for seat in llm.engine.seats.all)


def test_one_generation_is_enough_to_keep_others_from_the_whole_object(tiny: Callable[..., MaskProbeLlama]) -> None:
    llm = tiny(n_parallel=2)
    stream = llm.stream(TEXT, max_tokens=30)
    next(stream)
    for use in (llm.reset, llm.close):
        with pytest.raises(BusyError):
            use()
    stream.close()
    llm.reset()


def test_nobody_waits_for_who_has_gone(tiny: Callable[..., MaskProbeLlama]) -> None:
    """A pass waits a little for those who took part in the last one, unless their generations are over."""
    llm = tiny(n_parallel=2)
    streams = [llm.stream(TEXT, max_tokens=30) for _ in range(2)]
    for stream in streams:
        next(stream)
    passes = llm.engine.seats._passes
    assert passes is not None
    assert len(passes._expected) == 1  # the first has made its pass itself, as nobody else was there
    for stream in streams:
        stream.close()
    assert passes._expected == {}


def test_who_is_left_alone_goes_on_alone(tiny: Callable[..., MaskProbeLlama]) -> None:
    """With others, then without them, and with others again: each pass is made by one thread or the other."""
    llm = tiny(n_parallel=2)
    expected = llm.generate(TEXT, max_tokens=30, temperature=0.0).tokens
    stream, other = (llm.stream(TEXT, max_tokens=30, temperature=0.0) for _ in range(2))
    tokens = next(stream).tokens + next(stream).tokens
    next(other)
    tokens += next(stream).tokens
    other.close()
    for _ in range(3):
        tokens += next(stream).tokens
    with closing(llm.stream(TEXT, max_tokens=30, temperature=0.0)) as other:
        next(other)
        tokens += [token for chunk in stream for token in chunk.tokens]
    assert tokens == expected
