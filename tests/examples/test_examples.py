"""The examples run as they stand. Those of libraries that are not among the tests' own are in tests/clients."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from run_examples import FOLDER, printed

TESTS = Path(__file__).parents[1]
MOST_LINES = 60


def test_openais_client(url: str) -> None:
    said = printed("openai_client", url)
    found = re.fullmatch(r"chat: (.+)\nstream: (.+)\ntool: (\d+) \* (\d+) = (\d+)\nanswer: (.+)\n", said, re.DOTALL)
    assert found, said
    a, b, result = map(int, found.group(3, 4, 5))
    assert a * b == result


def test_many_prompts() -> None:
    said = dict(re.findall(r"^((?:prompt|task) \d): (\w.*)$", printed("many_prompts"), re.MULTILINE))
    assert set(said) == {f"{kind} {i}" for kind in ("prompt", "task") for i in range(4)}
    for i in range(4):
        assert said[f"prompt {i}"] == said[f"task {i}"]


def test_each_is_short_listed_and_run_by_a_test() -> None:
    there = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    listed = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(there)
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    for name, text in there.items():
        assert len(text.splitlines()) <= MOST_LINES, name
        assert ast.get_docstring(ast.parse(text)), name
        assert f'printed("{name}"' in tests, name
