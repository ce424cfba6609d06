"""Completions and chats in llama-cpp-python's shape: the same script with llama_cpp.Llama gives the same text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from maskprobe import ContextError, MaskProbeLlama, ModelError, Speculation

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
UNIQUE = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
QUESTION = [{"role": "user", "content": "Name the seven days of the week, one on each line."}]
TOOL = {
    "type": "function",
    "function": {"name": "remember", "description": "Remembers a person.", "parameters": SCHEMA},
}


@pytest.fixture(scope="module")
def ours(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=1024, n_threads=1, speculation=Speculation(budget=12)) as llm:
        yield llm


def text_of(parts: Any) -> str:
    return "".join(part["choices"][0]["text"] for part in parts)


def content_of(parts: Any) -> str:
    return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)


def both(stock: llama_cpp.Llama, ours: MaskProbeLlama, method: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """The answers of both to one call, each from an empty KV cache."""
    stock.reset()
    ours.reset()
    return getattr(stock, method)(*args, **options), getattr(ours, method)(*args, **options)


COMPLETIONS = {
    "plain": {},
    "stop": {"stop": ["Wednesday", "never there"]},
    "stop across tokens": {"stop": "day, Sat"},
    "echo": {"echo": True},
    "penalties": {"repeat_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2},
    "bias": {"logit_bias": {198: -100.0}},
    "grammar": {"grammar": llama_cpp.LlamaGrammar.from_string('root ::= "The " [a-z ]+ "."', verbose=False)},
    "sampled": {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.95, "seed": 5},
    "mirostat 1": {"temperature": 0.9, "mirostat_mode": 1, "seed": 3},
    "mirostat 2": {"temperature": 0.9, "mirostat_mode": 2, "mirostat_tau": 4.0, "seed": 3},
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions_are_llama_cpp_pythons(name: str, stock: llama_cpp.Llama, ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 40, "temperature": 0.0, **COMPLETIONS[name]}
    expected, got = both(stock, ours, "create_completion", "The seven days of the week are: Monday,", **options)
    timings = got.pop("timings")
    assert got.keys() == expected.keys()
    stops = {"stop": "Wednesday", "stop across tokens": "day, Sat"}
    assert got["choices"][0].pop("stop_reason", None) == stops.get(name)
    assert got["choices"] == expected["choices"]
    assert got["usage"] == expected["usage"]
    assert got["object"] == expected["object"]
    assert timings["predicted_n"] >= got["usage"]["completion_tokens"]
    parts = list(ours.create_completion("The seven days of the week are: Monday,", stream=True, **options))
    assert text_of(parts) == got["choices"][0]["text"]
    assert parts[-1]["choices"][0]["finish_reason"] == got["choices"][0]["finish_reason"]
    assert parts[-1]["usage"] == got["usage"]


CHATS = {
    "plain": {},
    "stop": {"stop": ["Thursday"]},
    "grammar": {"grammar": llama_cpp.LlamaGrammar.from_string('root ::= "1. " [A-Za-z\\n]+', verbose=False)},
    "tools that are not called": {"tools": [TOOL], "tool_choice": "none"},
}


@pytest.mark.parametrize("name", CHATS)
def test_chats_are_llama_cpp_pythons(name: str, stock: llama_cpp.Llama, ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 48, "temperature": 0.0, **CHATS[name]}
    expected, got = both(stock, ours, "create_chat_completion", QUESTION, **options)
    timings = got.pop("timings")
    assert got.keys() == expected.keys()
    [choice], [stock_choice] = got["choices"], expected["choices"]
    message = choice["message"]
    assert choice.pop("stop_reason", None) == ("Thursday" if name == "stop" else None)
    assert choice == stock_choice
    assert got["usage"] == expected["usage"]
    assert timings["passes"] <= timings["predicted_n"]
    parts = list(ours.create_chat_completion(QUESTION, stream=True, **options))
    assert parts[-1]["choices"][0]["finish_reason"] is not None
    assert parts[-1]["usage"] == got["usage"]
    assert parts[-1]["timings"].keys() >= {"predicted_ms", "prompt_n", "acceptance_length"}
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert content_of(parts) == message["content"]


def test_an_empty_stop_string_and_suffix_are_none(ours: MaskProbeLlama) -> None:
    for stop in ("", [""], ["", "never there"]):
        ours.reset()
        answer = ours.create_completion("One, two,", max_tokens=4, temperature=0.0, stop=stop, suffix="")
        assert answer["usage"]["completion_tokens"] == 4
        assert len(list(ours.stream("One, two,", max_tokens=4, temperature=0.0, stop=stop))) == 5


def call_of(ours: MaskProbeLlama, **options: Any) -> dict[str, Any]:
    """The choice of a chat that must call the tool, held to what a stream of it gives."""
    ours.reset()
    chosen = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "remember"}}}
    options = {"temperature": 0.0, "parallel_tool_calls": False, **chosen, **options}
    [choice] = ours.create_chat_completion(QUESTION, **options)["choices"]
    ours.reset()
    parts = list(ours.create_chat_completion(QUESTION, stream=True, **options))
    calls = [call for part in parts for call in part["choices"][0]["delta"].get("tool_calls") or ()]
    assert parts[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert arguments == (arguments_of(choice) if "tool_calls" in choice["message"] else "")
    assert [call["function"]["name"] for call in calls if "id" in call] == ["remember"] * bool(calls)
    return choice


def arguments_of(choice: dict[str, Any]) -> str:
    [call] = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None
    assert choice["message"]["function_call"] == call["function"]
    return str(call["function"]["arguments"])


def test_a_named_tool_is_called_by_its_schema(ours: MaskProbeLlama) -> None:
    choice = call_of(ours, max_tokens=160)
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(arguments_of(choice)).keys() == {"name", "age"}


def test_a_call_that_was_cut_is_none(ours: MaskProbeLlama) -> None:
    for options, reason in (({"max_tokens": 4}, "length"), ({"max_tokens": 80, "stop": "age"}, "stop")):
        choice = call_of(ours, **options)
        assert choice["finish_reason"] == reason
        assert "tool_calls" not in choice["message"]


def test_formats_that_make_grammars_themselves_enforce_simple_schemas_only(model_path: Callable[[str], Path]) -> None:
    options: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "speculation": Speculation(budget=4)}
    tool = {"type": "function", "function": {"name": "f", "parameters": UNIQUE}}
    chosen = {"type": "function", "function": {"name": "remember"}}
    with MaskProbeLlama(model_path("Q4_0"), chat_format="chatml-function-calling", **options) as llm:
        with pytest.raises(ValueError, match="uniqueItems in the parameters of f"):
            llm.create_chat_completion(QUESTION, tools=[tool], tool_choice="auto")
        answer = llm.create_chat_completion(QUESTION, tools=[TOOL], tool_choice=chosen, max_tokens=80, temperature=0.0)
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]).keys() == {"name", "age"}


def test_openais_schema_format_is_the_same(ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 60, "temperature": 0.0}
    formats = (
        {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        {"type": "json_object", "schema": SCHEMA},
    )
    texts = []
    for response_format in formats:
        ours.reset()
        answer = ours.create_chat_completion(QUESTION, response_format=response_format, **options)
        texts.append(answer["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]
    assert json.loads(texts[0]).keys() == {"name", "age"}


def test_logprobs_are_the_models_own(model_path: Callable[[str], Path], ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 24, "temperature": 0.0, "logprobs": 3}
    ours.reset()
    answer = ours.create_completion("The seven days of the week are: Monday,", **options)
    assert answer["timings"]["draft_n_accepted"] > 0
    got = answer["choices"][0]["logprobs"]
    llama = llama_cpp.Llama(
        str(model_path("Q4_0")), n_ctx=256, n_threads=1, flash_attn=True, logits_all=True, verbose=False
    )
    expected = llama.create_completion("The seven days of the week are: Monday,", **options)["choices"][0]["logprobs"]
    llama.close()
    assert got["tokens"] == expected["tokens"]
    assert got["text_offset"] == [offset - expected["text_offset"][0] for offset in expected["text_offset"]]
    assert np.allclose(got["token_logprobs"], expected["token_logprobs"], atol=1e-3)
    for ranked, stock_ranked in zip(got["top_logprobs"], expected["top_logprobs"], strict=True):
        assert ranked.keys() == stock_ranked.keys()
        assert np.allclose([ranked[k] for k in ranked], [stock_ranked[k] for k in ranked], atol=1e-3)


def test_streamed_logprobs_end_where_the_text_ends(ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 40, "temperature": 0.0, "logprobs": 0, "stop": "Thursday"}
    whole = ours.create_completion("The seven days of the week are: Monday,", **options)["choices"][0]
    parts = list(ours.create_completion("The seven days of the week are: Monday,", stream=True, **options))
    tokens = [token for part in parts if (found := part["choices"][0]["logprobs"]) for token in found["tokens"]]
    assert tokens == whole["logprobs"]["tokens"]
    assert whole["text"].startswith("".join(tokens))
    assert tokens
    assert "Thursday" not in "".join(tokens)
    assert all(len(part["choices"][0]["text"]) for part in parts[:-1])


@pytest.mark.parametrize("chat", [False, True])
def test_drafted_tokens_are_told_if_asked(chat: bool, ours: MaskProbeLlama) -> None:
    ask = ours.create_chat_completion if chat else ours.create_completion
    options = {"max_tokens": 40, "temperature": 0.0, "speculate": Speculation(budget=4)}
    asked = QUESTION if chat else "one two three one two three one two"
    whole = ask(asked, return_drafted=True, **options)
    [choice], timings = whole["choices"], whole["timings"]
    assert (len(choice["drafted"]), sum(choice["drafted"])) == (40, timings["draft_n_accepted"])
    assert 0 < timings["draft_n_accepted"] < 40
    *parts, last = ask(asked, return_drafted=True, stream=True, **options)
    choices = [part["choices"][0] for part in parts]
    flags = [flag for choice in choices for flag in choice.get("drafted", ())]
    assert (len(flags), sum(flags)) == (40, last["timings"]["draft_n_accepted"])
    assert all(choice["drafted"] for choice in choices if (choice["delta"].get("content") if chat else choice["text"]))
    assert "drafted" not in ask(asked, **options)["choices"][0]


def test_chat_logprobs_are_openais(ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 8, "temperature": 0.0, "logprobs": True}
    for n in (None, 2):
        answer = ours.create_chat_completion(QUESTION, top_logprobs=n, **options)
        content = answer["choices"][0]["logprobs"]["content"]
        assert "".join(entry["token"] for entry in content) == answer["choices"][0]["message"]["content"]
        for entry in content:
            assert math.exp(entry["logprob"]) <= 1.0
            assert len(entry["top_logprobs"]) == (n or 1)
            assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]


def test_every_ranked_token_is_told(ours: MaskProbeLlama) -> None:
    """Tokens that are halves of characters have the same text, but not the same bytes."""
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 0.0, "grammar": "root ::= [😀-🙏]+"}
    n = 5
    chat = ours.create_chat_completion(QUESTION, logprobs=True, top_logprobs=n, **options)
    for entry in chat["choices"][0]["logprobs"]["content"]:
        assert len({tuple(ranked["bytes"]) for ranked in entry["top_logprobs"]}) == n
    assert any(entry["token"].startswith("bytes:\\xf0") for entry in chat["choices"][0]["logprobs"]["content"])
    found = ours.create_completion("Smile: ", logprobs=n, **options)["choices"][0]["logprobs"]["top_logprobs"]
    assert all(len(ranked) >= n for ranked in found)


def test_tokens_of_a_stop_string_stay_out_of_the_list_behind_an_invalid_byte(ours: MaskProbeLlama) -> None:
    """One byte that is no character becomes three bytes of text."""
    [first] = [token for token in range(ours.n_vocab()) if ours.piece(token) == b"\xf0"]
    pieces = [first, *ours.tokenize("abc stop", add_bos=False)]
    grammar = "root ::= " + " ".join(f"<[{token}]>" for token in pieces)
    answer = ours.create_completion("Hi", max_tokens=20, temperature=0.0, logprobs=0, stop=" stop", grammar=grammar)[
        "choices"
    ][0]
    assert answer["text"] == "\ufffdabc"
    assert answer["logprobs"]["tokens"] == ["bytes:\\xf0", "abc"]


def test_the_first_part_comes_before_the_last_pass(ours: MaskProbeLlama) -> None:
    parts = ours.create_chat_completion(QUESTION, max_tokens=64, temperature=0.0, stream=True)
    next(parts)
    next(parts)
    n_cached = ours.engine.session.n_cached()
    rest = list(parts)
    assert ours.engine.session.n_cached() > n_cached + 20
    assert len(rest) > 20


def test_a_stream_left_behind_frees_the_object(ours: MaskProbeLlama) -> None:
    parts = ours.create_chat_completion(QUESTION, max_tokens=64, temperature=0.0, stream=True)
    next(parts)
    parts.close()
    assert ours.create_completion("Hi", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_turns_reuse_the_kv_cache(ours: MaskProbeLlama) -> None:
    ours.reset()
    first = ours.create_chat_completion(QUESTION, max_tokens=24, temperature=0.0)
    turns = [*QUESTION, first["choices"][0]["message"], {"role": "user", "content": "And in French?"}]
    second = ours.create_chat_completion(turns, max_tokens=8, temperature=0.0)
    assert second["timings"]["cache_n"] >= first["usage"]["prompt_tokens"]
    assert second["timings"]["cache_n"] + second["timings"]["prompt_n"] == second["usage"]["prompt_tokens"]


def test_stop_beats_length(ours: MaskProbeLlama) -> None:
    prompt = "The seven days of the week are: Monday,"
    whole = ours.create_completion(prompt, max_tokens=6, temperature=0.0, logprobs=0)["choices"][0]
    last = whole["logprobs"]["tokens"][-1]
    n = whole["logprobs"]["tokens"].index(last) + 1
    cut = ours.create_completion(prompt, max_tokens=n, temperature=0.0, stop=last)["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert last not in cut["text"]


def test_an_empty_prompt_starts_from_bos(ours: MaskProbeLlama) -> None:
    answer = ours("", max_tokens=4, temperature=0.0)
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}


def test_the_model_name_is_the_callers(ours: MaskProbeLlama) -> None:
    assert ours("Hi", max_tokens=1, model="mine")["model"] == "mine"
    assert ours("Hi", max_tokens=1)["model"].endswith(".gguf")


def test_timings_have_drafts_only_when_something_was_drafted(ours: MaskProbeLlama) -> None:
    plain = ours("The days are Monday,", max_tokens=12, temperature=0.0, speculate=False)["timings"]
    assert "draft_n" not in plain
    drafted = ours("The days are Monday,", max_tokens=12, temperature=0.0)["timings"]
    assert drafted["draft_n"] >= drafted["draft_n_accepted"] > 0


REFUSED = [
    ({"suffix": "end"}, ValueError, "fill-in-the-middle"),
    ({"tfs_z": 0.5}, ValueError, "tfs_z"),
    ({"echo": True, "logprobs": 1}, ValueError, "echo"),
    ({"logprobs": 101}, ValueError, "logprobs"),
    ({"logprobs": True}, TypeError, "logprobs"),
    ({"return_drafted": 1}, TypeError, "return_drafted"),
    ({"stream": 1}, TypeError, "stream"),
    ({"logit_bias": {10**6: 1.0}}, ValueError, "logit_bias"),
    ({"logit_bias": {"x": 1.0}}, ValueError, "logit_bias"),
    ({"logit_bias": [1]}, TypeError, "logit_bias"),
    ({"grammar": "root ::= undefined-rule"}, ValueError, "grammar"),
    ({"grammar": "start ::= [a-z]"}, ValueError, "grammar"),
    ({"grammar": ""}, ValueError, "grammar"),
    ({"grammar": 5}, TypeError, "grammar"),
    ({"grammar": "root ::= " + "(" * 30000 + "[a-z]" + ")" * 30000}, ValueError, "nested"),
    ({"mirostat_mode": 3}, ValueError, "mirostat_mode"),
    ({"stop": 5}, ValueError, "stop"),
    ({"max_tokens": "many"}, TypeError, "max_tokens"),
    ({"cache_prompt": 1}, TypeError, "cache_prompt"),
    ({"temperature": -1.0}, ValueError, "temperature"),
    ({"seed": -2}, ValueError, "seed"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_arguments_are_refused_by_the_call(
    options: dict[str, Any], error: type[Exception], message: str, stream: bool, ours: MaskProbeLlama
) -> None:
    with pytest.raises(error, match=message):
        ours.create_completion("Hi", **{"stream": stream, **options})
    assert ours("Hi", max_tokens=1)["usage"]["completion_tokens"] == 1


REFUSED_CHATS = [
    ([], {}, ValueError, "messages is empty"),
    ("Hi", {}, TypeError, "messages"),
    ([{"content": "Hi"}], {}, ValueError, r"messages\[0\]"),
    (["Hi"], {}, ValueError, r"messages\[0\]"),
    (QUESTION, {"response_format": {"type": "xml"}}, ValueError, "xml"),
    (QUESTION, {"response_format": {"type": "json_schema"}}, ValueError, "json_schema"),
    (QUESTION, {"response_format": "json"}, TypeError, "response_format"),
    (QUESTION, {"response_format": {"type": "json_object", "schema": UNIQUE}}, ValueError, "uniqueItems"),
    (
        QUESTION,
        {"response_format": {"type": "json_schema", "json_schema": {"schema": UNIQUE}}},
        ValueError,
        "uniqueItems",
    ),
    (
        QUESTION,
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": UNIQUE}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        ValueError,
        "tools: the parameters of f: .*uniqueItems",
    ),
    (
        QUESTION,
        {"functions": [{"name": "f", "parameters": UNIQUE}], "function_call": {"name": "f"}},
        ValueError,
        "uniqueItems",
    ),
    (QUESTION, {"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, ValueError, "exclude"),
    (
        QUESTION,
        {
            "response_format": {"type": "json_object"},
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "remember"}},
        },
        ValueError,
        "exclude",
    ),
    (QUESTION, {"tools": "f"}, TypeError, "tools"),
    (QUESTION, {"tools": [{"type": "function"}]}, ValueError, r"tools\[0\]"),
    (QUESTION, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "no"}}}, ValueError, "no"),
    ([{"role": "user", "content": "word " * 2000}], {}, ContextError, "n_ctx"),
]


@pytest.mark.parametrize(("messages", "options", "error", "message"), REFUSED_CHATS, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_chats_are_refused_by_the_call(
    messages: Any, options: dict[str, Any], error: type[Exception], message: str, stream: bool, ours: MaskProbeLlama
) -> None:
    with pytest.raises(error, match=message):
        ours.create_chat_completion(messages, stream=stream, **options)
    assert ours("Hi", max_tokens=1)["usage"]["completion_tokens"] == 1


def test_what_prompts_are_made_of_is_an_argument_of_chats(ours: MaskProbeLlama) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "Monday,"}]
    for options in ({}, {"continue_final_message": False}, {"chat_template_kwargs": {"enable_thinking": False}}):
        answer = ours.create_chat_completion(begun, max_tokens=1, **options)
        assert answer["usage"]["prompt_tokens"] == len(ours.apply_chat_template(begun, **options))
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        ours.create_chat_completion(QUESTION, temprature=0.5)  # type: ignore[call-arg]


def test_chat_formats_by_name(model_path: Callable[[str], Path], stock: llama_cpp.Llama) -> None:
    options: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "speculation": Speculation(budget=4)}
    with MaskProbeLlama(model_path("Q4_0"), chat_format="alpaca", **options) as llm:
        got = llm.create_chat_completion(QUESTION, max_tokens=12, temperature=0.0)
    stock.reset()
    handler = llama_cpp.llama_chat_format.get_chat_completion_handler("alpaca")
    expected = handler(llama=stock, messages=QUESTION, max_tokens=12, temperature=0.0, repeat_penalty=1.0)
    assert got["choices"] == expected["choices"]
    for name in ("nonsense", "functionary-v2"):
        with pytest.raises(ValueError, match=name):
            MaskProbeLlama(model_path("Q4_0"), chat_format=name, **options)


def test_a_chat_handler_of_ones_own(model_path: Callable[[str], Path]) -> None:
    def handler(*, llama: Any, messages: Any, **options: Any) -> Any:
        return llama.create_completion(messages[-1]["content"], max_tokens=3, temperature=0.0)

    with MaskProbeLlama(
        model_path("Q4_0"), n_ctx=512, n_threads=1, chat_handler=handler, speculation=Speculation(budget=4)
    ) as llm:
        answer = llm.create_chat_completion([{"role": "user", "content": "One, two,"}])
        with pytest.raises(ValueError, match="reasoning_effort is for chat templates"):
            llm.create_chat_completion([{"role": "user", "content": "One, two,"}], reasoning_effort="low")
        with pytest.raises(ValueError, match="return_drafted is not supported with this chat_format"):
            llm.create_chat_completion(QUESTION, return_drafted=True)
    assert answer["usage"]["completion_tokens"] == 3


@pytest.fixture
def with_template(tiny_path: Callable[[str], Path], tmp_path: Path) -> Callable[[str | None], MaskProbeLlama]:
    """A tiny model with a chat template of the test's."""
    import tiny_models

    def load(template: str | None) -> MaskProbeLlama:
        path = tiny_models.make("llama", tmp_path / "model.gguf", chat_template=template)
        return MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4))

    return load


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for m in messages %}{{ m.content",
        "{{ messages[0].content * 2 ** 'x' }}",
    ],
)
def test_templates_cannot_harm(template: str, with_template: Callable[[str | None], MaskProbeLlama]) -> None:
    with with_template(template) as llm:
        for call in (llm.create_chat_completion, llm.apply_chat_template):
            with pytest.raises(ValueError, match="chat template"):
                call(QUESTION)
        assert llm([5, 6], max_tokens=2)["usage"]["completion_tokens"] >= 1


def test_a_model_without_template_says_so(with_template: Callable[[str | None], MaskProbeLlama]) -> None:
    with with_template(None) as llm, pytest.raises(ModelError, match="chat_format"):
        llm.create_chat_completion(QUESTION)
