"""Hostile input from files and callers: it is read right or refused with the exception that is promised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf_mutations
import pytest
import tiny_models
from fuzz_targets import TARGETS, TEMPLATE, refusals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskprobe import MaskProbeError, MaskProbeLlama, ModelError, Speculation
from maskprobe.bench.prompts import read_prompts
from maskprobe.bench.results import FORMAT, Run, load
from maskprobe.notation import parse_speculation

# Files are written into one folder by all examples of a test, one after the other.
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def spoiled(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with some of its values replaced, removed or added to."""
    return st.builds(
        lambda new, gone: {key: value for key, value in {**good, **new}.items() if key not in gone},
        st.dictionaries(st.sampled_from([*good, "more"]), json_values, max_size=2),
        st.sets(st.sampled_from([*good]), max_size=1),
    )


def lines_of(entry: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """A file of JSON lines, most of them whole, joined as no two programs agree on."""
    line = entry.map(json.dumps)
    whole = line | entry.map(lambda value: json.dumps(value, ensure_ascii=False))
    cut = st.tuples(line, st.integers(0, 40)).map(lambda pair: pair[0][: pair[1]])
    ends = st.sampled_from(["\n", "\r\n", "\n\n", "\u2028"])
    return st.lists(st.tuples(whole | cut | st.text(max_size=20), ends), max_size=4).map(
        lambda pairs: "".join(text + end for text, end in pairs)
    )


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_fuzzing_found(name: str, tmp_path: Path) -> None:
    inputs = sorted((Path(__file__).parents[1] / "attacks" / name).iterdir())
    assert inputs
    with TARGETS[name](tmp_path) as run:
        for file in inputs:
            print(file.name)
            run(file.read_bytes())


# --- files of the benchmark ---------------------------------------------------------------------------

QUESTION = {"question_id": 7, "category": "writing", "turns": ["Say \u2028 hello.", "Again."]}


@few
@given(text=lines_of(spoiled(QUESTION) | json_values))
def test_prompt_files(tmp_path: Path, text: str) -> None:
    with refusals(MaskProbeError, "prompts.jsonl"):
        for case in read_prompts(written(tmp_path / "prompts.jsonl", text)):
            assert isinstance(case.question_id, (int, str))
            assert case.text.encode()
            assert isinstance(case.category.encode(), bytes)


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c"])
def test_a_prompt_may_hold_any_character(separator: str, tmp_path: Path) -> None:
    question = {**QUESTION, "turns": [f"one{separator}two"]}
    text = json.dumps(question, ensure_ascii=False)
    [case] = read_prompts(written(tmp_path / "prompts.jsonl", text))
    assert case.text == f"one{separator}two"


@pytest.mark.parametrize("read", [read_prompts, load])
@pytest.mark.parametrize("text", ["[" * 200_000, '{"turns":' * 100_000, "9" * 5000, '{"category": ' + "9" * 5000 + "}"])
def test_json_that_breaks_parsers(read: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    with pytest.raises(MaskProbeError, match=r"file\.jsonl"):
        read(written(tmp_path / "file.jsonl", text))


HEADER = {"plain": True, "settings": {"budget=4": {}}, "stock": ["draft-simple"]}
RUN = {
    "question_id": 7, "category": "writing", "setting": "plain", "looping": False, "equal_to_plain": None,
    "speed_ratio": 1.0, "wall_ms": 1.5, "cpu_ms": 1.5, "stats": {"predicted_n": 3},
}  # fmt: skip


@few
@given(
    header=st.just({"format": FORMAT, "header": HEADER}) | spoiled({"format": FORMAT, "header": HEADER}),
    keys=spoiled(HEADER),
    rest=lines_of(spoiled(RUN) | spoiled({"failed": "draft-simple", "why": "none"}) | json_values),
    nested=st.booleans(),
)
def test_results_files(tmp_path: Path, header: dict[str, Any], keys: dict[str, Any], rest: str, nested: bool) -> None:
    first = {"format": FORMAT, "header": keys} if nested else header
    with refusals(MaskProbeError, "results"):
        results = load(written(tmp_path / "results.jsonl", json.dumps(first) + "\n" + rest))
        assert results.finished() == {run.question_id for run in results.runs}
        assert all(isinstance(run, Run) and isinstance(run.stats, dict) for run in results.runs)
        results.settings()


@pytest.mark.parametrize(
    "entry", [{**RUN, "stats": 3}, {**RUN, "question_id": []}, {**RUN, "wall_ms": "1"}, {"failed": "x"}, {"failed": []}]
)
def test_odd_runs_are_refused(entry: dict[str, Any], tmp_path: Path) -> None:
    lines = [json.dumps({"format": FORMAT, "header": HEADER}), json.dumps(entry), json.dumps(RUN)]
    with pytest.raises(MaskProbeError, match="line 2: not a run"):
        load(written(tmp_path / "results.jsonl", "\n".join(lines)))


# --- arguments ----------------------------------------------------------------------------------------

names = st.sampled_from(["masks", "block", "update", "probe", "prune", "tree", "sources", "budget", "cost", "paper-"])
values = st.sampled_from(
    ["0", "1", "-1", "4", "15x4", "auto", "nan", "inf", "1e999", "true", "mixed", "dynamic", "x", "1:1/8:2", "1:nan",
     "0:1", ":", "/", "²", "٣", "9" * 5000, "probe", "ngrams+adjacency", "table-mean", "", "\0"]
) | st.text(max_size=6)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names, st.sampled_from(["=", "", "=="]), values).map("".join), max_size=4).map(",".join))
def test_notation(text: str) -> None:
    with refusals((ValueError, TypeError)):
        assert parse_speculation(text).rows() >= 1


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaskProbeLlama]:
    path = tiny_models.make("llama", tmp_path_factory.mktemp("chat") / "chat.gguf", chat_template=TEMPLATE)
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        yield llm


MESSAGE = {"role": "user", "content": "hello", "name": "ann", "tool_calls": [], "tool_call_id": "1"}
any_messages = st.lists(spoiled(MESSAGE) | json_values, max_size=3) | json_values


@few
@given(messages=any_messages)
def test_messages(chatting: MaskProbeLlama, messages: Any) -> None:
    with refusals((ValueError, TypeError)):
        assert all(isinstance(token, int) for token in chatting.apply_chat_template(messages))


@settings(max_examples=40, deadline=None)
@given(
    messages=st.just([{"role": "user", "content": "hi"}]) | any_messages,
    options=st.dictionaries(
        st.sampled_from(
            ["tools", "tool_choice", "response_format", "stop", "temperature", "top_p", "top_k", "seed", "logit_bias",
             "logprobs", "top_logprobs", "functions", "function_call", "presence_penalty", "grammar", "speculate"]
        ),
        json_values,
        max_size=2,
    ),
)  # fmt: skip
def test_chat_arguments(chatting: MaskProbeLlama, messages: Any, options: dict[str, Any]) -> None:
    with refusals((ValueError, TypeError, MaskProbeError)):
        assert chatting.create_chat_completion(messages, max_tokens=2, **options)["choices"]
    assert chatting.generate("still there", max_tokens=1).tokens


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages", "{% for x in y %}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{% include 'file' %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__.__init__.__globals__ }}",
        "{% set x = cycler.__init__.__globals__.os.system('true') %}{{ x }}", "{{ messages[0].nothing.more }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)  # fmt: skip
def test_hostile_templates(template: str, tmp_path: Path) -> None:
    path = tiny_models.make("llama", tmp_path / "hostile.gguf", chat_template=template)
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        with refusals((ValueError, MaskProbeError)):
            ids = llm.apply_chat_template([{"role": "user", "content": "hi"}])
            assert "class" not in llm.detokenize(ids)  # nothing of the interpreter came out
        assert llm.generate("still there", max_tokens=2, temperature=0.0).tokens


# --- model files --------------------------------------------------------------------------------------


def run_mutations(model: Path, folder: Path, seed: int, first: int, count: int) -> list[str]:
    """Loads damaged models in a process of its own; its lines, one for each that did not kill it."""
    script = str(Path(gguf_mutations.__file__))
    done = subprocess.run(
        [sys.executable, script, str(model), str(folder), str(seed), str(first), str(count)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"killed by {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()


ABORTS = {
    "llama.block_count": (0, "0 layers"),
    "llama.attention.layer_norm_rms_epsilon": (float("nan"), "epsilon is nan"),
    "llama.expert_used_count": (2, "2 of 0 experts"),
    "llama.expert_group_count": (1, "groups"),
    "llama.rope.scaling.type": ("cubic", "scaling.type is 'cubic'"),
}


@pytest.mark.parametrize("key", ABORTS)
def test_models_on_which_llama_cpp_aborts_are_refused(
    key: str, tiny_path: Callable[[str], Path], tmp_path: Path
) -> None:
    value, says = ABORTS[key]
    with pytest.raises(ModelError, match=rf"copy\.gguf cannot be used: .*{says}"):
        MaskProbeLlama(gguf_mutations.with_key(tiny_path("llama"), tmp_path / "copy.gguf", key, value))


def test_a_token_twice_is_refused(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    data = tiny_path("llama").read_bytes()
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(data.replace(b"\1\0\0\0\0\0\0\0A\1\0\0\0\0\0\0\0B", b"\1\0\0\0\0\0\0\0A" * 2))
    assert copy.read_bytes() != data
    with pytest.raises(ModelError, match="a token twice"):
        MaskProbeLlama(copy)


def test_damaged_models_are_refused_or_work(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    # Among these are two (numbers 95 and 149) on which llama.cpp aborts.
    lines = run_mutations(tiny_path("llama"), tmp_path, 2, 80, 100)
    assert len(lines) == 100
    outcomes = [line.split()[1].rstrip(":") for line in lines]
    assert outcomes.count("refused") > 30
    assert outcomes.count("works") > 10
