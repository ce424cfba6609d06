"""llama-server's own endpoints: tokens, templates, what the server is, and filling in the middle."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
from server_fixtures import DEADLINE, HELLO, NAME, Gate, fetch, note_prompts, serving
from test_server_waiting import busy

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.chat.infill import File, infill_prompt
from maskprobe.server.requests import ChatRequest

TEXT = "Grüße <|im_end|> 𒀀"


# --- tokens and templates -------------------------------------------------------------------------------


def test_tokens(url: str, served: MaskProbeLlama) -> None:
    def tokens(**body: Any) -> Any:
        return fetch(url, "/tokenize", body).json()["tokens"]

    assert tokens(content=TEXT) == served.tokenize(TEXT, add_bos=False)
    assert tokens(content=TEXT, parse_special=False) == served.tokenize(TEXT, add_bos=False, special=False)
    assert tokens(content=TEXT, add_special=True) == served.tokenize(TEXT)
    assert tokens(content=["a", 5, "b"]) == [*served.tokenize("a"), 5, *served.tokenize("b")]
    assert tokens(content="") == []


def test_a_list_begins_once(coder_url: str, coder: MaskProbeLlama) -> None:
    """With the token that begins texts, where the model wants one."""
    pieces = ["the tree", "of the sea"]
    ids = [token for piece in pieces for token in coder.tokenize(piece, add_bos=False)]
    for add, begin in ((True, [coder.token_bos()]), (False, [])):
        reply = fetch(coder_url, "/tokenize", {"content": pieces, "add_special": add})
        assert reply.json()["tokens"] == begin + ids


def test_pieces(url: str) -> None:
    pieces = fetch(url, "/tokenize", {"content": TEXT, "with_pieces": True}).json()["tokens"]
    assert {"id": 2, "piece": "<|im_end|>"} in pieces
    data = b"".join(bytes(p["piece"]) if isinstance(p["piece"], list) else p["piece"].encode() for p in pieces)
    assert data.decode() == TEXT
    assert any(isinstance(piece["piece"], list) for piece in pieces), "a character of several tokens"


def test_tokens_become_text_again(url: str) -> None:
    tokens = fetch(url, "/tokenize", {"content": TEXT}).json()["tokens"]
    assert fetch(url, "/detokenize", {"tokens": tokens}).json() == {"content": TEXT}
    assert fetch(url, "/detokenize", {"tokens": []}).json() == {"content": ""}


def test_template(url: str, served: MaskProbeLlama) -> None:
    prompt = fetch(url, "/apply-template", {"messages": HELLO}).json()["prompt"]
    assert served.tokenize(prompt) == served.apply_chat_template(HELLO)
    assert HELLO[0]["content"] in prompt


def test_they_need_no_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with busy(url, monkeypatch):
        assert fetch(url, "/tokenize", {"content": "a"}).status == 200
        assert fetch(url, "/apply-template", {"messages": HELLO}).status == 200
        counted = fetch(url, "/v1/messages/count_tokens", {"messages": HELLO})
        assert counted.json()["input_tokens"] > 5
        assert fetch(url, "/props").status == 200


@pytest.mark.parametrize(
    ("path", "param", "body"),
    [
        ("/tokenize", "content", {}),
        ("/tokenize", "content", {"content": 5}),
        ("/tokenize", None, {"content": ["a", 999999]}),
        ("/tokenize", "with_pieces", {"content": "a", "with_pieces": 1}),
        ("/detokenize", "tokens", {}),
        ("/detokenize", "tokens[1]", {"tokens": [1, "a"]}),
        ("/detokenize", "tokens", {"tokens": [999999]}),
        ("/detokenize", "tokens[0]", {"tokens": [-1]}),
        ("/apply-template", "messages", {}),
        ("/infill", "input_suffix", {"input_prefix": "a"}),
    ],
    ids=str,
)
def test_bad_fields(url: str, path: str, param: str | None, body: dict[str, Any]) -> None:
    reply = fetch(url, path, body)
    assert (reply.status, reply.error()["param"]) == (400, param)


# --- what the server is ---------------------------------------------------------------------------------


def test_props(url: str, served: MaskProbeLlama) -> None:
    props = fetch(url, "/props").json()
    assert props["default_generation_settings"]["n_ctx"] == served.n_ctx()
    assert props["total_slots"] == 1
    assert props["chat_template"] == served.metadata["tokenizer.chat_template"]
    assert props["model_path"] == served.model_path.name
    assert props["eos_token"] == "<|im_end|>"
    assert props["bos_token"] == served.piece(served.token_bos(), special=True).decode() != ""


def test_props_tell_the_defaults(url: str, served: MaskProbeLlama) -> None:
    params = fetch(url, "/props").json()["default_generation_settings"]["params"]
    assert params["temperature"] == ChatRequest.model_fields["temperature"].default
    parameters = inspect.signature(served.create_chat_completion).parameters
    defaults = {"top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}
    defaults |= {"mirostat_tau", "mirostat_eta"}
    assert {name: params[name] for name in defaults} == {name: parameters[name].default for name in defaults}


def test_slots(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (slot,) = fetch(url, "/slots").json()
    assert (slot["id"], slot["n_ctx"], slot["is_processing"], slot["speculative"]) == (0, 1024, False, True)
    assert fetch(url, "/slots?fail_on_no_slot=1").status == 200
    with busy(url, monkeypatch):
        (working,) = fetch(url, "/slots").json()
        assert working["is_processing"] is True
        assert working["id_task"] == slot["id_task"] + 1
        assert fetch(url, "/slots?fail_on_no_slot=1").status == 503


@pytest.mark.parametrize(("method", "state"), [("prefill", "prompt"), ("step", "answer")])
def test_a_slot_tells_how_far_it_is(url: str, monkeypatch: pytest.MonkeyPatch, method: str, state: str) -> None:
    request = {"messages": HELLO, "max_tokens": 9, "temperature": 0, "cache_prompt": False}
    reply: list[Any] = []
    gate = Gate(monkeypatch, method)
    client = threading.Thread(target=lambda: reply.append(fetch(url, "/v1/chat/completions", request).json()))
    client.start()
    assert gate.reached.wait(DEADLINE)
    (working,) = fetch(url, "/slots").json()
    gate.open()
    client.join(DEADLINE)
    usage, timings = reply[0]["usage"], reply[0]["timings"]
    n_prompt, n_answer = (usage["prompt_tokens"], 1) if method == "step" else (0, 0)
    assert (working["state"], working["is_processing"]) == (state, True)
    assert (working["n_prompt_tokens_processed"], working["n_prompt_tokens_cache"]) == (n_prompt, 0)
    assert working["n_prompt_tokens"] == n_prompt + n_answer
    assert working["next_token"] == [{"has_next_token": True, "n_decoded": n_answer}]
    assert (working["passes"], working["draft_n"], working["draft_n_accepted"]) == (0, 0, 0)
    (idle,) = fetch(url, "/slots").json()
    assert (idle["state"], idle["is_processing"]) == ("idle", False)
    assert idle["n_prompt_tokens"] == usage["total_tokens"]
    assert idle["next_token"] == [{"has_next_token": False, "n_decoded": usage["completion_tokens"]}]
    for name in ("passes", "acceptance_length", "draft_n", "draft_n_accepted"):
        assert idle[name] == timings[name], name


def test_a_model_without_drafts_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskProbeLlama, "drafting", SimpleNamespace(shape="none"))
    (slot,) = fetch(url, "/slots").json()
    assert slot["speculative"] is False


# --- filling in the middle ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaskProbeLlama]:
    path = tiny_models.make_coder(tmp_path_factory.mktemp("coder") / "coder.gguf")
    with MaskProbeLlama(path, n_ctx=128, n_threads=1, seed=1, speculation=Speculation(budget=4)) as llm:
        yield llm


@pytest.fixture(scope="module")
def coder_url(coder: MaskProbeLlama) -> Iterator[str]:
    with serving(coder) as url:
        yield url


INFILL = {"input_prefix": "the tree", "input_suffix": "of the sea", "n_predict": 4, "temperature": 0}


NAMES = dict(enumerate(("<PRE>", "<SUF>", "<MID>", "<PROJECT>", "<FILE>"), 1))


def spelled(llm: MaskProbeLlama, ids: list[int]) -> str:
    return "".join(NAMES.get(token) or llm.piece(token, special=True).decode() for token in ids)


def test_infill_prompt(coder: MaskProbeLlama) -> None:
    vocab = coder.prompts.model.vocab
    files = [File("a.py", "one"), File("b.py", "two")]
    ids = infill_prompt(vocab, "the tree", "of the sea", begun=" is", files=files, room=100)
    assert spelled(coder, ids) == (
        "<s><PROJECT>myproject\n<FILE>a.py\none<FILE>b.py\ntwo<FILE>filename\n<PRE>the tree is<SUF>of the sea<MID>"
    )
    assert spelled(coder, infill_prompt(vocab, "a", "b", room=100)) == "<s><PRE>a<SUF>b<MID>"


def test_infill_begins_as_the_model_wants_it(coder: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coder.prompts.model.vocab, "adds_bos", False)
    assert spelled(coder, infill_prompt(coder.prompts.model.vocab, "a", "b", room=100)) == "<PRE>a<SUF>b<MID>"


def test_infill_prompts_are_cut_far_from_the_gap(coder: MaskProbeLlama) -> None:
    vocab = coder.prompts.model.vocab
    files = [File("a.py", "one" * 20), File("b.py", "two")]
    full = len(infill_prompt(vocab, "p" * 40, "s" * 40, files=files[1:], room=1000))
    ids = infill_prompt(vocab, "p" * 40, "s" * 40, files=files, room=full)
    assert len(ids) == full
    assert "a.py" not in spelled(coder, ids)
    assert "b.py" in spelled(coder, ids)
    ids = infill_prompt(vocab, "x" + "p" * 200, "q" * 200 + "x", begun="line", files=files, room=88)
    text = spelled(coder, ids)
    assert len(ids) == 88
    assert text.startswith("<s><PRE>pp")
    assert "pline<SUF>q" in text
    assert text.endswith("qq<MID>")
    n_line = len(coder.tokenize("line", add_bos=False))
    assert (text.count("p"), text.count("q")) == (84 - n_line - (84 - n_line) // 4, (84 - n_line) // 4)


def test_infill(coder_url: str, coder: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = note_prompts(monkeypatch)
    answer = fetch(coder_url, "/infill", INFILL).json()
    ids = infill_prompt(coder.prompts.model.vocab, "the tree", "of the sea", room=100)
    own = coder.create_completion(ids, max_tokens=4, temperature=0.0)
    assert answer["content"] == own["choices"][0]["text"]
    assert lengths == [len(ids), len(ids)]
    assert (answer["stop"], answer["tokens_evaluated"], answer["model"]) == (True, len(ids), NAME)
    assert answer["timings"]["predicted_n"] == answer["tokens_predicted"]


def test_infill_reads_all_that_editors_send(coder_url: str, coder: MaskProbeLlama) -> None:
    more = {"prompt": " is", "input_extra": [{"filename": "a.py", "text": "one"}, {"text": "two"}]}
    ids = infill_prompt(
        *(coder.prompts.model.vocab, "the tree", "of the sea"),
        begun=" is",
        files=[File("a.py", "one"), File("tmp", "two")],
        room=100,
    )
    own = coder.create_completion(ids, max_tokens=4, temperature=0.0)
    answer = fetch(coder_url, "/infill", INFILL | more).json()
    assert (answer["content"], answer["tokens_evaluated"]) == (own["choices"][0]["text"], len(ids))
    assert answer["tokens_cached"] == answer["timings"]["cache_n"] > 0


@pytest.mark.parametrize(
    ("limit", "length", "n_answer"),
    [({"n_predict": 4}, 252, 4), ({"n_predict": 200}, 128, 128), ({}, 192, 64)],
    ids=str,
)
def test_infill_leaves_room_for_the_answer(
    coder_url: str,
    coder: MaskProbeLlama,
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, int],
    length: int,
    n_answer: int,
) -> None:
    """Half of the context of 256 at most; a quarter, where nothing is said."""
    lengths = note_prompts(monkeypatch)
    body = {"input_prefix": "the tree " * 40, "input_suffix": "of the sea " * 40}
    endless = {"logit_bias": {str(token): -100 for token in coder.prompts.model.vocab.ends()}}
    answer = fetch(coder_url, "/infill", body | endless | limit).json()
    assert (lengths, answer["tokens_predicted"]) == ([length], n_answer)


def test_infill_says_why_it_ended(coder_url: str, coder: MaskProbeLlama) -> None:
    cut = fetch(coder_url, "/infill", INFILL).json()
    assert (cut["stop_type"], cut["stopping_word"]) == ("limit", "")
    ended = fetch(coder_url, "/infill", INFILL | {"logit_bias": {str(coder.token_eos()): 100}}).json()
    assert (ended["stop_type"], ended["content"]) == ("eos", "")
    word = cut["content"][1]
    for stream in (False, True):
        reply = fetch(coder_url, "/infill", INFILL | {"stop": ["zebra", word], "stream": stream}).body.decode()
        last = json.loads(reply.strip().split("\n\n")[-1].removeprefix("data: "))
        assert (last["stop_type"], last["stopping_word"]) == ("word", word)


def test_files_without_a_token_for_their_names_are_snippets(
    coder: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab = coder.prompts.model.vocab
    monkeypatch.setattr(vocab, "infill_files", lambda: (-1, -1))
    ids = infill_prompt(vocab, "a", "b", files=[File("a.py", "one"), File("b.py", "two")], room=100)
    snippet = "\n\n--- snippet ---\n\n"
    assert spelled(coder, ids) == f"<s>{snippet}one{snippet}two<PRE>a<SUF>b<MID>"


def test_streamed_infill(coder_url: str) -> None:
    reply = fetch(coder_url, "/infill", INFILL | {"stream": True})
    events = [json.loads(event[6:]) for event in reply.body.decode().strip().split("\n\n")]
    assert "".join(event["content"] for event in events) == fetch(coder_url, "/infill", INFILL).json()["content"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]


def test_response_fields_and_those_that_editors_send(coder_url: str) -> None:
    more = {"samplers": ["top_k"], "n_indent": 2, "t_max_predict_ms": 500, "t_max_prompt_ms": 500, "top_k": 40}
    fields = {"response_fields": ["content", "timings/prompt_n", "no/such"]}
    assert fetch(coder_url, "/infill", INFILL | more | fields).json().keys() == {"content", "timings/prompt_n"}


def test_infill_needs_tokens_for_it(url: str, coder_url: str) -> None:
    reply = fetch(url, "/infill", INFILL)
    assert (reply.status, reply.error()["code"]) == (501, "not_supported")
    for param, body in (
        ("input_extra[0].text", {"input_extra": [{}]}),
        ("n_predict", {"n_predict": 0}),
        ("temperature", {"temperature": 9}),
        ("nothing", {"nothing": 1}),
    ):
        bad = fetch(coder_url, "/infill", INFILL | body)
        assert (bad.status, bad.error()["param"]) == (400, param)


@pytest.mark.parametrize(("path", "body"), [("/infill", INFILL), ("/apply-template", {"messages": HELLO})])
def test_another_model_is_not_found(coder_url: str, path: str, body: dict[str, Any]) -> None:
    reply = fetch(coder_url, path, body | {"model": "gpt-5"})
    assert (reply.status, reply.error()["code"]) == (404, "model_not_found")


def test_reads_are_answered_in_any_thread(coder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    gate.open()
    assert fetch(coder_url, "/tokenize", {"content": "the sea"}).json()["tokens"]
