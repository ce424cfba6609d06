"""bench/templates.py tells templates that render what clients send from those that do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench_scripts import bench_script
from chat_templates import raising, template


def test_templates_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = template()
    (tmp_path / "good.jinja").write_text(good, "utf-8")
    (tmp_path / "refusing.jinja").write_text(raising("true"), "utf-8")
    (tmp_path / "twice.jinja").write_text(good + "{{ messages[-1].content }}", "utf-8")
    (tmp_path / "encoding.jinja").write_text(template("{{ c.function.arguments | tojson | tojson }}"), "utf-8")
    for least, status in ((1, 0), (3, 1)):
        monkeypatch.setattr(sys, "argv", ["templates.py", str(tmp_path), "--fail-under", str(least)])
        with pytest.raises(SystemExit) as ended:
            bench_script("templates").main()
        assert int(ended.value.code or 0) == status
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["good"] == "ok"
    assert "the chat template cannot render these messages: no" in rows["refusing"]
    assert "Wthanks 2 times" in rows["twice"]
    assert "agent: town encoded twice" in rows["encoding"]
    assert rows["bare"] == "2 of 4"
