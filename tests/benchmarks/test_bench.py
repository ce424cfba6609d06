"""The benchmark: what it measures adds up, an interrupted run goes on, and what is missing is named."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from bench.paper import tables as paper
from bench.paper.__main__ import app as paper_app
from typer.testing import CliRunner

from maskprobe import MaskProbeError
from maskprobe.bench import opponents, report
from maskprobe.bench.results import Results, Run, load
from maskprobe.bench.summary import acceptance_by_depth, pace, reliability, summarize

ROOT = Path(__file__).parents[2]


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs maskprobe bench."""
    return python("maskprobe.cli", "bench", *args)


def python(module: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *args], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture
def model(model_path: Callable[[str], Path]) -> str:
    return str(model_path("Q4_0"))


def write_prompts(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = [
    json.dumps({"question_id": 1, "category": "writing", "turns": ["Write one line about rain.", "Again."]}),
    json.dumps({"question_id": 2, "category": "math", "turns": ["What is 2 + 2?"]}),
    json.dumps({"question_id": 3, "category": "math", "turns": ["long " * 900]}),
]


def suite(prompts: Path, model: str, *args: str) -> subprocess.CompletedProcess[str]:
    return bench(
        "suite", "--prompts", str(prompts), "-m", model, "--max-tokens", "12", "--n-threads", "1", "--n-ctx", "1024",
        *args,
    )  # fmt: skip


def test_suite_measures_and_writes(model: str, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", *GOOD), tmp_path / "out.jsonl"
    done = suite(prompts, model, "--speculation", "tree=4", "--speculation", "budget-10", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "tokens/pass" in done.stdout
    assert "drafted tokens by" in done.stdout
    results = load(out)
    assert results.header["prompts"] == 2  # the long one is left out
    assert list(results.header["settings"]) == ["tree=4", "budget-10"]
    assert [run.setting for run in results.runs] == ["plain", "tree=4", "budget-10"] * 2
    for run in results.runs:
        assert run.equal_to_plain is True
        assert run.speed_ratio is not None
        assert run.speed_ratio > 0
        assert run.stats["predicted_n"] > 0
        assert run.cpu_ms > 0
        assert run.wall_ms > run.stats["predicted_ms"]


def test_an_interrupted_suite_goes_on(model: str, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", *GOOD), tmp_path / "out.jsonl"
    assert suite(prompts, model, "--speculation", "tree=4", "--out", str(out)).returncode == 0
    lines = out.read_text().splitlines()
    assert len(lines) == 5
    # Cut in the middle of the second prompt's last line.
    out.write_text("\n".join(lines[:4]) + "\n" + lines[4][:50])
    done = suite(prompts, model, "--speculation", "tree=4", "--out", str(out))
    assert done.returncode == 0, done.stderr
    again = out.read_text().splitlines()
    assert again[1:3] == lines[1:3]  # what was finished is kept as it was
    assert [json.loads(line)["question_id"] for line in again[1:]] == [1, 1, 2, 2]
    other = suite(prompts, model, "--speculation", "tree=5", "--out", str(out))
    assert other.returncode == 1
    assert "differs in settings" in other.stderr
    assert out.read_text().splitlines() == again


def test_missing_and_crashing_opponents_are_named(model: str, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", GOOD[1]), tmp_path / "out.jsonl"
    crashing = tmp_path / "llama-server"
    crashing.write_text("#!/bin/sh\necho cannot open display\nexit 3\n")
    crashing.chmod(0o755)
    for program, words in (("no-such-program", "no llama-server at"), (str(crashing), "cannot open display")):
        out.unlink(missing_ok=True)
        done = suite(prompts, model, "--stock", "ngram-mod", "--llama-server", program, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert re.search(f"ngram-mod could not be run: .*{words}", done.stdout)
        results = load(out)
        assert words in results.failed["ngram-mod"]
        assert {run.setting for run in results.runs} == {"plain", "auto"}


def test_llama_cpps_programs_are_read(tmp_path: Path) -> None:
    program = tmp_path / "llama-lookup"
    lines = (
        "encoded    9 tokens in    0.050 seconds, speed:  180.000 t/s",
        "decoded   33 tokens in    0.400 seconds, speed:   82.500 t/s",
        "n_drafted    = 40",
        "n_accept     = 12",
    )
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines))
    program.chmod(0o755)
    start = opponents.opponents(
        ["llama-lookup"], tmp_path / "llama-server", tmp_path / "m.gguf", lambda ids: f"text of {len(ids)}",
        draft_model=None, n_ctx=512, n_threads=1,
    )["llama-lookup"]  # fmt: skip
    stats = start().generate([1, 2, 3], 32).stats
    assert (stats.prompt_n, stats.predicted_n, stats.predicted_ms) == (9, 33, 400.0)
    assert (stats.passes, stats.rows, stats.draft_n, stats.draft_n_accepted) == (20, 60, 40, 12)  # 1 + 20 + 12 tokens
    program.write_text("#!/bin/sh\necho no such model\nexit 1\n")
    with pytest.raises(opponents.OpponentError, match="ended with 1: no such model"):
        start().generate([1, 2, 3], 32)


# llama-server as far as the benchmark goes: each answer is 7 8, and as a third token the end, if there is room.
STAND_IN = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({{}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = [7, 8, 2][: asked["n_predict"]]
        timings = {{"prompt_n": 3, "prompt_ms": 1.0, "predicted_n": len(tokens), "predicted_ms": 6.0}}
        stop = "eos" if tokens[-1] == 2 else "limit"
        self.answer({{"content": "ab", "tokens": tokens, "stop_type": stop, "timings": timings}})

    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_the_end_is_no_token_of_llama_servers_answers(tmp_path: Path) -> None:
    """Nor of ours: answers that end are held to be equal."""
    program = tmp_path / "llama-server"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    with closing(opponents.LlamaServer(program, tmp_path / "m.gguf", (), n_ctx=512, n_threads=1)) as server:
        for most, reason in ((2, "length"), (5, "stop")):
            out = server.generate([1, 2, 3], most)
            assert (out.tokens, out.finish_reason) == ([7, 8], reason)


def run_paper(prompts: Path, model: str, *args: str) -> subprocess.CompletedProcess[str]:
    return python(
        "bench.paper", "--prompts", str(prompts), "-m", model, "--max-tokens", "6", "--n-threads", "1",
        "--n-ctx", "512", *args,
    )  # fmt: skip


@pytest.mark.parametrize("tables", [("3", "6"), ("7",), ("8",)])
def test_tables_of_the_paper(tables: tuple[str, ...], model: str, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", GOOD[1]), tmp_path / "out.jsonl"
    done = run_paper(prompts, model, *(arg for table in tables for arg in ("--table", table)), "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = [row for table in tables for row in paper.QUESTIONS[table].rows]
    assert all(row.label in done.stdout for row in rows)
    runs = load(out).runs
    # Tables that share a setting share its runs.
    assert sorted(run.setting for run in runs) == sorted({"plain", *(row.setting for row in rows)})
    assert all(run.equal_to_plain for run in runs)


BAD_PAPER = [
    (("--table", "99"), "--table must be one of"),
    (("--table", "1", "--table", "7"), "tables 1, 7 have different temperatures"),
    ((), "--table 1, or --figure 2"),
    (("--table", "1", "--figure", "2"), "--table 1, or --figure 2"),
    (("--table", "1", "--plot", "f.png"), "--plot needs --figure"),
    (("--figure", "2", "--out", "f.jsonl"), "--out needs --table"),
]


def test_what_the_paper_lacks_is_refused(tmp_path: Path) -> None:
    runner = CliRunner()
    prompts = write_prompts(tmp_path / "prompts.jsonl", GOOD[1])
    for args, message in BAD_PAPER:
        done = runner.invoke(paper_app, ["--prompts", str(prompts), *args])
        assert isinstance(done.exception, ValueError)
        assert message in str(done.exception)


def test_figure_2(model: str, tmp_path: Path) -> None:
    prompts, png = write_prompts(tmp_path / "prompts.jsonl", GOOD[0]), tmp_path / "figure.png"
    done = run_paper(prompts, model, "--figure", "2", "--plot", str(png))
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    layers = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert layers == ["input", *map(str, range(1, 31))]
    assert png.read_bytes().startswith(b"\x89PNG")


def test_llama_cpp_pythons_lookup_runs_beside(model: str, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", GOOD[1]), tmp_path / "out.jsonl"
    done = suite(prompts, model, "--stock", "llama-cpp-python-lookup-2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    [plain, _, stock] = load(out).runs
    assert stock.setting == "llama-cpp-python-lookup-2"
    assert stock.stats["predicted_n"] == plain.stats["predicted_n"]
    assert stock.stats["passes"] <= plain.stats["passes"]


@pytest.mark.parametrize("line", ["not json", "{}", '{"question_id": 1, "category": "a", "turns": []}', '["a"]'])
def test_a_bad_line_is_named(line: str, model: str, tmp_path: Path) -> None:
    done = suite(write_prompts(tmp_path / "prompts.jsonl", GOOD[0], line), model)
    assert done.returncode == 1
    assert "prompts.jsonl, line 2: not a SpecBench question" in done.stderr


BAD = [
    (("--speculation", "tree=nine"), "tree='nine'|must be"),
    (("--stock", "nonsense"), "unknown stock mode 'nonsense'"),
    (("--max-prompt-tokens", "3"), "no prompt has at most 3 tokens"),
    (("--out", "/no/such/folder/out.jsonl"), "cannot be written"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_options_are_one_line(args: tuple[str, ...], message: str, model: str, tmp_path: Path) -> None:
    done = suite(write_prompts(tmp_path / "prompts.jsonl", GOOD[1]), model, *args)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert re.search(message, line)


def run_of(setting: str, category: str, ratio: float, **stats: object) -> Run:
    figures = {
        "passes": 10,
        "predicted_n": 21,
        "predicted_ms": 100.0,
        "rows": 40,
        "decode_ms": 90.0,
        "host_ms": 10.0,
        "reliability": [],
        "accepted_per_depth": [6, 4],
        **stats,
    }
    return Run(1, category, setting, False, True, ratio, 120.0, 200.0, figures)


def some_results() -> Results:
    header = {
        "model": "a <b>model</b>", "n_threads": 2, "prompts": 2, "max_tokens": 20, "n_ctx": 64, "n_gpu_layers": 0,
        "machine": "m", "maskprobe": "0", "llama_cpp_python": "0", "model_sha256": "f" * 64, "stock": ["ngram-mod"],
        "settings": {"auto": {}}, "plain": True, "costs": {"1": 5.0, "2": 7.0, "8": 20.0},
    }  # fmt: skip
    said = [[20 * i, 19 * i, 18.0 * i] for i in range(10)]
    runs = [run_of("plain", "a", 1.0), run_of("auto", "a", 1.5, reliability=said), run_of("ngram-mod", "a", 0.9)]
    return Results(header, runs=runs, failed={"ngram-cache": "it is not there"})


def test_summaries_pool_before_dividing() -> None:
    runs = [run_of("auto", "a", 2.0), run_of("auto", "b", 1.0, passes=30, predicted_n=31, predicted_ms=300.0, rows=60)]
    of = summarize(runs)
    assert of.acceptance_length == pytest.approx((20 + 30) / 40)
    assert of.rows_per_pass == pytest.approx(100 / 40)
    assert of.pooled_ratio == pytest.approx((2.0 * 100 + 1.0 * 300) / 400)
    assert of.median_ratio == pytest.approx(1.5)
    assert of.tokens_per_second == pytest.approx(1e3 * 52 / 400)
    assert of.cpu_ms_per_token == pytest.approx(400 / 52)
    assert (of.n_equal, of.n_compared) == (2, 2)
    assert acceptance_by_depth(runs, 3) == [12 / 40, 8 / 40, 0.0]
    said = [[0, 0, 0.0], [10, 4, 5.0]]
    assert reliability([run_of("auto", "a", 1.0, reliability=said)] * 2) == [(0, 0.0, 0.0), (20, 0.5, 0.4)]


def test_speed_is_over_stock_plain_decoding_where_that_was_run() -> None:
    results = some_results()
    assert results.against_stock() is results
    speeds = {"plain": 30.0, "auto": 60.0, "server-plain": 20.0, "ngram-mod": 25.0}
    results.runs = [run_of(name, "a", 1.0, predicted_per_second=speed) for name, speed in speeds.items()]
    results.runs.append(dataclasses.replace(results.runs[1], question_id=2))  # which the server did not answer
    against = results.against_stock()
    assert against.baseline == "server-plain"
    assert [run.speed_ratio for run in against.runs] == [1.5, 3.0, 1.0, 1.25, None]
    assert [run.speed_ratio for run in results.runs] == [1.0] * 5
    assert "Speed is against server-plain" in page_of(results)


def page_of(results: Results) -> str:
    with tempfile.TemporaryDirectory() as folder:
        report.write_html([results], Path(folder) / "report.html")
        return (Path(folder) / "report.html").read_text()


def test_pace_is_of_one_row_passes() -> None:
    plain = [dataclasses.replace(run_of("plain", "a", 1.0), question_id=i) for i in range(6)]
    rival = [
        dataclasses.replace(run_of("ngram-mod", "a", 1.0, rows=10, predicted_ms=90.0), question_id=i) for i in range(6)
    ]
    assert pace(rival, plain) == pytest.approx(0.9)
    assert pace(rival[:4], plain) is None
    assert pace(plain, plain) is None  # more rows than passes
    assert pace(rival, []) is None


def test_the_report_is_one_file_with_all_plots(tmp_path: Path) -> None:
    text = page_of(some_results())
    assert text.count("data:image/png;base64,") == 6
    assert "&lt;b&gt;model" in text
    assert "ngram-cache could not be run: it is not there" in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text)
    written = report.write_plots([some_results()], tmp_path / "plots")
    assert len(written) == 6
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"format": 0, "header": {"settings": {}, "stock": []}}'])
def test_other_files_are_no_results(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(MaskProbeError, match="no results file"):
        load(path)


def test_report_on_the_command_line(tmp_path: Path) -> None:
    results = some_results()
    results.path = tmp_path / "r.jsonl"
    results.begin()
    done = bench("report", str(results.path), "--html", str(tmp_path / "no" / "r.html"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    done = bench("report", str(results.path))
    assert done.returncode == 0, done.stderr
    assert "ngram-mod" in done.stdout
