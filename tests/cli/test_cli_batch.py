"""`maskprobe batch`: a file of requests becomes a file of answers, in as many runs as it takes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama
from maskprobe.cli import app
from maskprobe.server import Batch

NAME = "smollm2"


def line(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    if "chat" in url:
        body = {"messages": [{"role": "user", "content": f"Say {custom_id}."}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"max_tokens": 8, "temperature": 0} | body}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines))
    return path


def read(path: Path) -> dict[str, Any]:
    return {one["custom_id"]: one["response"] for one in map(json.loads, path.read_text().splitlines())}


@pytest.fixture(scope="module")
def many(model_path: Callable[[str], Path]) -> Any:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=512, n_threads=1, n_parallel=3) as llm:
        yield llm


def test_each_line_is_answered_once(many: MaskProbeLlama, tmp_path: Path) -> None:
    lines = [line(f"word {i}") for i in range(7)]
    lines += [line("text", "/v1/completions", prompt="one two three"), line("long", max_tokens=9, n=2)]
    source, target = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    batch = Batch(source, target)
    with closing(batch.run(many, [NAME])) as ended:
        assert list(islice(ended, 3)) == [True] * 3
        assert len(read(target)) == 3  # each is written as it ends
    first = read(target)
    assert 3 <= len(first) < len(lines)
    with target.open("a") as out:
        out.write('{"custom_id": "word')  # a run that was killed while it wrote
    again = Batch(source, target)
    assert (again.n_done, len(again)) == (len(first), len(lines) - len(first))
    assert all(again.run(many, [NAME]))
    found = read(target)
    assert sorted(found) == sorted(one["custom_id"] for one in lines)
    assert {one: found[one] for one in first} == first
    for one in lines:
        body, asked = found[one["custom_id"]]["body"], dict(one["body"])
        if "prompt" in asked:
            assert body["choices"][0]["text"] == many.create_completion(**asked)["choices"][0]["text"]
        else:
            asked.pop("n", None)
            expected = many.create_chat_completion(**asked)["choices"][0]["message"]["content"]
            assert body["choices"][0]["message"]["content"] == expected
    assert len(found["long"]["body"]["choices"]) == 2
    assert len(Batch(source, target)) == 0


def test_what_is_wrong_with_a_line_is_its_answer(many: MaskProbeLlama, tmp_path: Path) -> None:
    lines = [
        line("fine"),
        line("no", "/v1/embeddings", input="x"),
        line("hot", temperature=-1),
        line("long", messages=[{"role": "user", "content": "word " * 600}]),
        line("stream", stream=True),
        line("other", model="gpt"),
        {"custom_id": "bare"},
        line("get") | {"method": "GET"},
        line("list") | {"url": []},
    ]
    target = tmp_path / "out.jsonl"
    ended = list(Batch(write(tmp_path / "in.jsonl", lines), target).run(many, [NAME]))
    assert sorted(ended) == [False] * 8 + [True]
    found = read(target)
    assert {one: reply["status_code"] for one, reply in found.items()} == {
        **{
            "fine": 200,
            "no": 404,
            "hot": 400,
            "long": 400,
            "stream": 400,
            "other": 404,
            "bare": 404,
            "get": 404,
            "list": 404,
        }
    }
    assert found["hot"]["body"]["error"]["param"] == "temperature"
    assert found["long"]["body"]["error"]["param"] == "messages"
    assert found["fine"]["request_id"] == found["fine"]["body"]["id"] != ""
    assert '"id": "batch_req_fine"' in target.read_text()
    assert "stream" in found["stream"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{\n"], "line 1 is no JSON"),
        (["[" * 200_000 + "\n"], "line 1 is no JSON"),
        ([line("a"), "\n", {"body": {}}], "line 3 must be an object with a custom_id"),
        ([line("")], "line 1 must be an object with a custom_id"),
        (["[]\n"], "line 1 must be an object with a custom_id"),
        ([line("a"), line("b"), line("a")], "two lines have the custom_id 'a'"),
    ],
)
def test_a_file_that_is_no_batch_is_refused(tmp_path: Path, lines: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Batch(write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"custom_id": "\xff"}')
    with pytest.raises(ValueError, match=r"in\.jsonl is no text in UTF-8"):
        Batch(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_texts_may_hold_what_elsewhere_ends_a_line(tmp_path: Path) -> None:
    """JSON may hold U+2028 as it is; files of other systems begin with a mark, or end lines with CR LF."""
    text = json.dumps(line("a\u2028b\x85c"), ensure_ascii=False)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(f"\ufeff{text}\r\n{json.dumps(line('d'))}\r\n".encode())
    target.write_bytes(f"{text}\n".encode())
    batch = Batch(source, target)
    assert (batch.n_done, len(batch)) == (1, 1)


def test_answers_of_other_files_are_not_counted(tmp_path: Path) -> None:
    target = write(tmp_path / "out.jsonl", [{"custom_id": "elsewhere"}, {"custom_id": "a"}])
    batch = Batch(write(tmp_path / "in.jsonl", [line("a"), line("b")]), target)
    assert (batch.n_done, len(batch)) == (1, 1)


def test_requests_run_at_once_and_are_given_up_together(
    many: MaskProbeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3)
    ended: list[str] = []

    def answer(*, messages: Any, before_pass: Callable[[], None], **_: Any) -> Any:
        together.wait(60)
        for _ in range(2000 if messages[0]["content"] != "Say 0." else 1):
            before_pass()
            time.sleep(0.005)
        ended.append(messages[0]["content"])
        return {"choices": [{}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    monkeypatch.setattr(many, "create_chat_completion", answer)
    target = tmp_path / "out.jsonl"
    with closing(
        Batch(write(tmp_path / "in.jsonl", [line(str(i)) for i in range(3)]), target).run(many, [NAME])
    ) as run:
        assert next(run)
    assert ended == ["Say 0."]
    assert read(target).keys() == {"0"}


def test_the_command(model_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_path("Q4_0")
    loaded: list[dict[str, Any]] = []

    class Noted(MaskProbeLlama):
        def __init__(self, model_path: Path, **options: Any) -> None:
            loaded.append(options)
            super().__init__(model_path, **options)

    monkeypatch.setattr("maskprobe.cli.batch.MaskProbeLlama", Noted)
    lines = [line("a"), line("b", temperature=-1)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    args = ["batch", str(source), str(target), "-m", str(path), "--n-ctx", "512", "--n-threads", "1"]
    args += ["--parallel", "2", "--speculation", "budget=3"]
    more = [line(f"model {i}", model=name) for i, name in enumerate((str(path), path.name, path.stem))]
    for asked, says in (
        (lines, "1 of 2 requests answered; 1 are errors"),
        (lines, "all 2 requests are answered"),
        (lines + more, "3 of 3 requests answered, 2 before; 0 are errors"),
    ):
        write(source, asked)
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0
        assert says in result.stderr.replace("\n", " ")
    statuses = {one: reply["status_code"] for one, reply in read(target).items()}
    assert statuses == {"a": 200, "b": 400, "model 0": 200, "model 1": 200, "model 2": 200}
    assert [options["n_parallel"] for options in loaded] == [2, 2]
    assert [options["speculation"].budget for options in loaded] == [3, 3]
