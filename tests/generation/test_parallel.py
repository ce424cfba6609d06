"""Several generations on one object: each says what it says alone, whatever shares its passes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from maskprobe import BusyError, MaskProbeLlama, SamplingError, Speculation, StateError

SPECULATIONS = [
    Speculation(budget=10, probe="table-mean"),
    Speculation(cost_curve={1: 1.0, 2: 1.2, 8: 1.6, 60: 6.0}),
    Speculation(tree=(6,)),
    Speculation.paper(10),
    Speculation(sources=("ngrams", "adjacency"), budget=8),
    False,
]
TEXT = "the tree of the sea and the tree of the sea and the tree"


def requests_of(prompts: Sequence[list[int]], n: int, max_tokens: int) -> list[dict[str, Any]]:
    """Requests of every kind; seeds of their own."""
    return [
        {
            "prompt": prompts[i % len(prompts)],
            "max_tokens": max_tokens - i % 5,
            "temperature": 0.0 if i % 2 else 0.9,
            "seed": i,
            "speculate": SPECULATIONS[i % len(SPECULATIONS)],
        }
        for i in range(n)
    ]


def alone(llm: MaskProbeLlama, requests: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Token by token, one after the other."""
    return [llm.generate(**{**one, "speculate": False}, cache_prompt=False).tokens for one in requests]


def together(llm: MaskProbeLlama, requests: Sequence[dict[str, Any]], n_threads: int) -> list[list[int]]:
    with ThreadPoolExecutor(n_threads) as threads:
        return [out.tokens for out in threads.map(lambda one: llm.generate(**one), requests)]


@pytest.fixture(scope="module")
def smollm(model_path: Callable[[str], Path]) -> Iterator[Callable[[int], MaskProbeLlama]]:
    """SmolLM2 with so many seats, in little room. Alone its prompts come in pieces in which each row is as if alone."""
    loaded: dict[int, MaskProbeLlama] = {}

    def get(n: int) -> MaskProbeLlama:
        if n not in loaded:
            options: dict[str, Any] = {"n_batch": 32, "n_ubatch": 32} if n == 1 else {"n_parallel": n, "queue": True}
            loaded[n] = MaskProbeLlama(model_path("Q4_0"), n_ctx=768, n_threads=1, **options)
        return loaded[n]

    yield get
    for llm in loaded.values():
        llm.close()


@pytest.fixture(scope="module")
def tiny(tiny_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, n_parallel=3) as llm:
        yield llm


@pytest.mark.parametrize("n", [4, 8])
def test_each_says_what_it_says_alone(smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str], n: int) -> None:
    one, many = smollm(1), smollm(n)
    ids = [one.tokenize(text) for text in prompts.values()]
    requests = requests_of([*ids, ids[0] + ids[2]], 16, 26)
    before = many.engine.seats.n_passes
    answers = together(many, requests, n)
    assert answers == alone(one, requests)
    n_tokens = sum(map(len, answers))
    assert many.engine.seats.n_passes - before < n_tokens / 2  # passes were shared


def test_lanes_come_and_go(smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str]) -> None:
    """Streams that are given up after a few tokens, beside others; cells run out and are packed."""
    one, many = smollm(1), smollm(4)
    ids = [one.tokenize(text) for text in prompts.values()]
    requests = requests_of(ids, 24, 22)
    expected = alone(one, requests)
    rng = random.Random(5)
    takes = [rng.choice([2, 5, 1000, 1000]) for _ in requests]

    def some(i: int) -> list[int]:
        with closing(many.stream(**requests[i])) as chunks:
            return [token for chunk in islice(chunks, takes[i]) for token in chunk.tokens]

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(some, range(len(requests))))
    assert found == [tokens[:n] for tokens, n in zip(expected, takes, strict=True)]
    figures = many.engine.seats.figures()
    assert figures is not None
    assert figures.n_compactions > 0
    assert all(seat.thread == 0 for seat in many.engine.seats.all)


def test_a_conversation_finds_its_seat(smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str]) -> None:
    many = smollm(4)
    many.reset()
    first = many.tokenize(prompts["bakery"])
    answer = many.generate(first, max_tokens=12, temperature=0.0)
    for text in (prompts["days"], prompts["python"]):  # others come between
        many.generate(text, max_tokens=6)
    more = [*first, *answer.tokens, *many.tokenize(" And then?", add_bos=False)]
    again = many.generate(more, max_tokens=6, temperature=0.0)
    assert again.stats.cache_n >= len(first) + len(answer.tokens) - 1
    assert again.tokens == many.generate(more, max_tokens=6, temperature=0.0, cache_prompt=False).tokens


def test_what_prompts_begin_with_is_decoded_once(
    smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str]
) -> None:
    """A system prompt in the cells of one that still runs; nothing else of that text reaches the others."""
    one, many = smollm(1), smollm(4)
    many.reset()
    system = one.tokenize(prompts["bakery"])
    asked = [[*system, *one.tokenize(text, add_bos=False)] for text in (" Who bakes?", " And her brother?", " Why?")]
    requests = [{"prompt": ids, "max_tokens": 12, "temperature": 0.9, "seed": i} for i, ids in enumerate(asked)]
    expected = alone(one, requests)
    first = many.stream(**requests[0])
    begun = next(first).tokens
    for request, tokens in zip(requests[1:], expected[1:], strict=True):
        out = many.generate(**request)
        assert out.stats.cache_n >= len(system)
        assert out.tokens == tokens
    assert begun + [token for chunk in first for token in chunk.tokens] == expected[0]


def test_conversations_that_leave_the_cells_come_back(
    smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str]
) -> None:
    """More of them than seats, and than there are cells for."""
    one, many = smollm(1), smollm(4)
    many.reset()
    chats = [one.tokenize(f"Chat {i}. {prompts['bakery']}") * 2 for i in range(7)]
    assert sum(map(len, chats)) > many.n_ctx()
    for turn in range(2):
        for i, ids in enumerate(chats):
            out = many.generate(ids, max_tokens=8, temperature=0.0)
            assert out.tokens == one.generate(ids, max_tokens=8, temperature=0.0, cache_prompt=False).tokens
            assert turn == 0 or len(ids) - out.stats.cache_n <= 20
            chats[i] = [*ids, *out.tokens, *one.tokenize(" Go on.", add_bos=False)]
    figures = many.engine.seats.figures()
    assert figures is not None
    assert figures.n_parked > 0
    assert figures.parked_bytes > 0


@pytest.mark.parametrize("name", ["llama", "gemma2", "lfm2", "mamba"])
def test_other_models(tiny_path: Callable[[str], Path], name: str) -> None:
    """A recurrent state without snapshots is one text's alone: there they wait for each other."""
    with (
        MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1, n_batch=32, n_ubatch=32) as one,
        MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1, n_parallel=3) as many,
    ):
        requests = [
            {"prompt": TEXT[: 20 + 9 * i], "max_tokens": 20, "temperature": 0.8 * (i % 2), "seed": i} for i in range(3)
        ]
        assert together(many, requests, 3) == alone(one, requests)
        assert len(many.engine.seats.all) == (1 if name == "mamba" else 3)


def test_with_several_threads_logits_stay_the_same(
    smollm: Callable[[int], MaskProbeLlama], prompts: dict[str, str]
) -> None:
    """From 257 cells on llama.cpp's attention is split among threads, unless a row has another beside it."""
    one = smollm(1)
    text = (one.tokenize(prompts["bakery"]) * 3)[:270]

    def logprobs(llm: MaskProbeLlama) -> list[float]:
        out = llm.generate(text, max_tokens=3, temperature=1.0, seed=2, speculate=False, logprobs=0)
        return [one.logprob for one in out.logprobs]

    with MaskProbeLlama(one.model_path, n_ctx=1024, n_threads=2, n_parallel=2, cpu_kernels=False) as many:
        assert logprobs(many) == logprobs(one)


def test_more_than_there_are_seats(tiny: MaskProbeLlama) -> None:
    streams = [tiny.stream(TEXT, max_tokens=30, temperature=0.0) for _ in range(4)]
    first = [next(stream).tokens for stream in streams[:3]]
    with pytest.raises(BusyError, match="3 times at once"):
        next(streams[3])
    with pytest.raises(BusyError):
        tiny.reset()
    with pytest.raises(BusyError):
        tiny.close()
    rest = [[token for chunk in stream for token in chunk.tokens] for stream in streams[:3]]  # one after the other
    expected = tiny.generate(TEXT, max_tokens=30, temperature=0.0).tokens
    assert [a + b for a, b in zip(first, rest, strict=True)] == [expected] * 3
    with pytest.raises(StateError, match="n_parallel=1"):
        tiny.save_state("nowhere")
    tiny.reset()


def test_queued_generations_wait_in_order(tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, queue=True) as llm:
        stream = llm.stream(TEXT, max_tokens=5)
        next(stream)
        with pytest.raises(BusyError):  # nobody else could end it
            llm.generate(TEXT, max_tokens=5)
        ended: list[int] = []

        def wait_for_turn(i: int) -> None:
            llm.generate(TEXT, max_tokens=3)
            ended.append(i)

        threads = [threading.Thread(target=wait_for_turn, args=(i,)) for i in range(3)]
        for n, thread in enumerate(threads, 1):
            thread.start()
            while len(llm._lifetime._waiting) < n:
                time.sleep(0.001)
        stream.close()
        for thread in threads:
            thread.join(60)
        assert ended == [0, 1, 2]


def test_grammars_and_processors_are_each_ones_own(smollm: Callable[[int], MaskProbeLlama]) -> None:
    """What is asked within a pass is asked for the right text, in whatever thread the pass is made."""
    many = smollm(4)
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}}, "required": ["name"]}
    messages = [{"role": "user", "content": "Who are you?"}]
    chat: dict[str, Any] = {"max_tokens": 40, "temperature": 0.8, "response_format": {"type": "json_object"}}
    chat["response_format"]["schema"] = schema

    def answer(seed: int) -> str:
        if seed % 2:
            return many.generate("Who are you?", max_tokens=20, temperature=0.8, seed=seed).text
        out = many.create_chat_completion(messages, seed=seed, **chat)
        return str(out["choices"][0]["message"]["content"])

    alone = [answer(seed) for seed in range(8)]
    assert all(text.lstrip().startswith("{") for text in alone[::2])
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(answer, range(8))) == alone


def test_what_is_called_within_a_pass_cannot_generate(tiny: MaskProbeLlama) -> None:
    """It would wait for itself, whether or not a seat is free."""
    inner: list[BaseException] = []

    def processor(ids: Any, scores: Any) -> Any:
        if not inner:
            try:
                tiny.generate(TEXT, max_tokens=3)
            except Exception as error:
                inner.append(error)
        return scores

    others = [tiny.stream(TEXT, max_tokens=30) for _ in range(2)]
    for stream in others:
        next(stream)
    tiny.generate(TEXT, max_tokens=5, logits_processor=[processor])
    assert isinstance(inner[0], BusyError)
    assert "within a pass" in str(inner[0])
    for stream in others:
        stream.close()


def test_a_failure_is_ones_own(tiny: MaskProbeLlama) -> None:
    """A caller's exception, a grammar that leaves nothing, a slow reader: others go on."""
    expected = tiny.generate(TEXT, max_tokens=60, temperature=0.7, seed=4).tokens
    n_passes = 0

    def give_up() -> None:
        nonlocal n_passes
        n_passes += 1
        if n_passes == 4:
            raise RuntimeError("enough")

    def fails() -> None:
        with pytest.raises(RuntimeError, match="enough"):
            tiny.generate(TEXT, max_tokens=200, temperature=0.7, seed=4, before_pass=give_up)

    def rules_out() -> None:
        nothing = {token: float("-inf") for token in range(tiny.n_vocab())}
        with pytest.raises(SamplingError, match="logit_bias"):
            tiny.generate(TEXT, max_tokens=9, logit_bias=nothing)

    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(fails), threads.submit(rules_out)]
        out = tiny.generate(TEXT, max_tokens=60, temperature=0.7, seed=4)
        for future in futures:
            future.result(60)
    assert out.tokens == expected
    slow = tiny.stream(TEXT, max_tokens=60, temperature=0.7, seed=4)
    begun = next(slow).tokens
    assert tiny.generate(TEXT, max_tokens=60, temperature=0.7, seed=4).tokens == expected  # nobody waits for the reader
    assert begun + [token for chunk in slow for token in chunk.tokens] == expected


def test_options_that_do_not_fit(tiny_path: Callable[[str], Path]) -> None:
    for n in (0, 17):
        with pytest.raises(ValueError, match="n_parallel"):
            MaskProbeLlama(tiny_path("llama"), n_parallel=n)
    with pytest.raises(ValueError, match="needs n_batch of 66"):
        MaskProbeLlama(tiny_path("llama"), n_parallel=2, n_batch=32)
    with pytest.raises(TypeError, match="queue"):
        MaskProbeLlama(tiny_path("llama"), queue="yes")  # type: ignore[arg-type]
