"""`maskprobe race`: stock llama.cpp and ours answer the same prompts, and everybody sees how it went."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pexpect
import pytest
from reference import PlainDecoder
from rich.console import Console
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama
from maskprobe.cli import app
from maskprobe.race import course, screen
from maskprobe.race.prompts import PROMPTS
from maskprobe.race.stock import Stock, StockError

FAST = ("--n-threads", "1", "--n-ctx", "512", "--max-tokens", "12", "--speculation", "budget=4")


@pytest.fixture(scope="module")
def model(model_path: Callable[[str], Path]) -> str:
    return str(model_path("Q4_0"))


@pytest.fixture(scope="module")
def stock(llm: MaskProbeLlama) -> Iterator[Stock]:
    with Stock(llm) as stock:
        yield stock


def test_stock_is_plain_decoding(
    stock: Stock, llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    for name, n in (("days", 200), ("python", 8)):  # one ends, one is cut
        ids = llm.tokenize(prompts[name])
        steps = list(stock.answer(ids, n))
        assert [token for token, _ in steps] == plain_decoder("Q4_0").decode(ids, n).tokens
        times = [ms for _, ms in steps]
        assert times == sorted(times)
        assert (times[0], times[-1] > 0.0) == (0.0, True)


def test_stock_tells_how_near_a_tie_is(
    stock: Stock, llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    ids = llm.tokenize(prompts["python"])
    expected = plain_decoder("Q4_0").decode(ids, 4)
    assert stock.gap(ids) == pytest.approx(expected.gaps[0], abs=1e-4)


def test_a_stock_process_that_dies_says_why(llm: MaskProbeLlama) -> None:
    with Stock(llm) as stock:
        stock._process.kill()
        with pytest.raises(StockError, match="ended early: "):
            list(stock.answer([1, 2], 4))
        with pytest.raises(StockError, match="ended early: "):
            list(stock.answer([1, 2], 4))
    llm.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(llm), "n_threads", lambda self: "many")
        with pytest.raises(StockError, match="TypeError"):
            Stock(llm)


def test_both_answers_are_told(model: str, llm: MaskProbeLlama) -> None:
    result = CliRunner().invoke(app, ["race", "Count to five.", "--kind", "chat", "-m", model, *FAST, "--json"])
    assert result.exit_code == 0
    races = json.loads(result.stdout)["races"]
    assert [race["prompt"] for race in races] == ["chat", "prompt 1"]
    ids = llm.apply_chat_template([{"role": "user", "content": "Count to five."}])
    expected = llm.generate(ids, max_tokens=12, temperature=0.0)
    for name in ("stock", "maskprobe"):
        assert races[1][name]["text"] == expected.text
        assert races[1][name]["tokens"] == len(expected.tokens)
    assert races[1]["stock"]["tokens_per_pass"] == 1.0
    assert races[1]["maskprobe"]["tokens_per_pass"] >= 1.0
    assert all(race["parts_at"] is None and race["ratio"] > 0.0 for race in races)


def test_a_pipe_gets_lines_and_no_colours(model: str) -> None:
    result = CliRunner().invoke(app, ["race", "--kind", "json", "-m", model, *FAST])
    assert result.exit_code == 0
    assert "json: " in result.stdout
    assert "equal text" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_terminal_shows_both(model: str, tmp_path: Path) -> None:
    picture = tmp_path / "race.svg"
    command = ["-m", "maskprobe.cli", "race", "--kind", "code", "-m", model, *FAST, "--svg", str(picture)]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", dimensions=(40, 60), timeout=120)
    shown = child.read()
    child.wait()
    assert child.exitstatus == 0, shown
    assert "stock llama.cpp" in shown
    assert "x stock llama.cpp" in shown
    assert not re.search(r"@font-face|url\((?!#)", picture.read_text())  # whoever looks at it asks no other host
    texts = "".join(ElementTree.parse(picture).getroot().itertext())
    assert "maskprobe" in texts
    assert "equal" in texts


def test_an_unknown_kind_is_named() -> None:
    result = CliRunner().invoke(app, ["race", "--kind", "poem"])
    assert isinstance(result.exception, ValueError)
    assert f"no prompt 'poem'; take one of {', '.join(PROMPTS)}" in str(result.exception)


def answer(*steps: tuple[int, float, bool]) -> course.Answer:
    """Of tokens, their times and whether they were drafted."""
    found = [course.Step(token, f"<{token}>", ms, drafted) for token, ms, drafted in steps]
    return course.Answer(found, sum(not step.drafted for step in found[1:]), done=True)


def test_figures_of_a_race() -> None:
    race = course.Race("x", answer((1, 0, False), (2, 10, False), (3, 20, False)), answer((1, 0, False), (2, 5, True)))
    race.ours.steps.append(course.Step(4, "<4>", 5.0))
    race.ours.passes = 1
    assert (race.stock.tokens_per_second, race.ours.tokens_per_second, race.ratio) == (100.0, 400.0, 4.0)
    assert (race.stock.tokens_per_pass, race.ours.tokens_per_pass) == (1.0, 2.0)
    assert race.parts_at == 2
    race.gap = 0.0125
    assert "part at token 2, where two logits are 0.013 apart" in screen.verdict(race)
    race.ours.steps.pop()
    assert race.parts_at == 2  # one is shorter
    assert race.stock.until(10.0).text == "<1><2>"
    assert not race.stock.until(10.0).done


@pytest.mark.parametrize("width", [24, 70, 120])
def test_panes_fit_their_screen(width: int) -> None:
    race = course.Race(
        "x", answer(*((i, 10.0 * i, False) for i in range(300))), answer(*((i, 0.0, True) for i in range(9)))
    )
    console = Console(file=io.StringIO(), width=width, height=30, force_terminal=True, color_system="truecolor")
    console.print(screen.Panes(race))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    plain = Console(file=io.StringIO(), width=width, height=30)
    plain.print(screen.Panes(race))
    lines = plain.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 30
    assert "\x1b[30;48;5;157m<8>" in shown.replace("\x1b[0m", "")
    assert "<8>" in plain.file.getvalue()  # type: ignore[attr-defined]
