"""Replays canitoolcall's recorded outputs through the parser of replies: python -m bench.tool_calls

Prints per family of models how many pass hard, pass soft (whitespace apart) and fail, and names each that is not a hard
pass. Every output is read in one piece, one character at a time, and in random pieces; all must give the same.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable

from canitoolcall import checks
from canitoolcall.chunking import ChunkStrategy, split
from canitoolcall.fixtures import Family, Fixture, load_families, load_fixtures
from canitoolcall.results import CheckResult, Observation, ParseResult, Status, StreamAccumulator

from maskprobe.replies import CallArguments, CallBegins, Content, Event, Format, Leftover, Reasoning, named

# The outputs come with names of models and no templates, so that formats are found by name here.
FORMATS = {
    "deepseek-ai/DeepSeek-V3-0324": "deepseek-v3",
    "deepseek-ai/DeepSeek-V3.1": "deepseek-v3.1",
    "deepseek-ai/DeepSeek-V3.2": "deepseek-v3.2",
    "deepseek-ai/DeepSeek-V4-Flash": "deepseek-v4",
    "deepseek-ai/DeepSeek-V4.1-Flash": "deepseek-v4.1",
    "google/gemma-4-31B-it": "gemma-4",
    "meta-llama/Llama-3.3-70B-Instruct": "llama-3",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "llama-4",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral-json",
    "moonshotai/Kimi-K3": "kimi-k3",
}
FAMILIES = {
    "glm": "glm",
    "gpt-oss": "harmony",
    "kimi": "kimi-k2",
    "mistral": "mistral",
    "qwen3-hermes": "hermes",
    "qwen3-xml": "qwen-xml",
}
PIECES = tuple(ChunkStrategy.parse(spec) for spec in ("one", "token", *(f"rand:{seed}:8" for seed in range(1, 6))))


def format_of(fixture: Fixture) -> Format:
    """The format of the model that wrote this output."""
    return named(FORMATS.get(fixture.reference_model) or FAMILIES[fixture.family])


def read(fixture: Fixture, family: Family, pieces: Iterable[str]) -> ParseResult:
    """What a client that puts the stream of these pieces together gets."""
    reference = family.reference_for(fixture.reference_model)
    prompt_end = fixture.generation_prompt
    if prompt_end is None:
        prompt_end = (reference.default_generation_prompt if reference else None) or ""
    parser = format_of(fixture).parser(fixture.tools, prompt_end)
    client = StreamAccumulator()
    for piece in pieces:
        _give(client, parser.feed(piece), fixture)
    _give(client, parser.finish(), fixture)
    return client.result()


def _give(client: StreamAccumulator, events: list[Event], fixture: Fixture) -> None:
    for event in events:
        match event:
            case Reasoning(text):
                client.add_reasoning(text)
            case Content(text):
                client.add_content(text)
            case CallBegins(index, name):
                client.add_tool_call(index, name)
            case CallArguments(index, text):
                client.add_tool_call(index, arguments=text)
            case Leftover(text) if "truncated" not in fixture.tags:  # the model stopped by itself: it is text
                client.add_content(text)


def judge(fixture: Fixture, family: Family) -> tuple[Status, list[CheckResult]]:
    """How this output is passed, and the checks that are not passed hard."""
    streams = {
        pieces.id: read(fixture, family, ["".join(group) for group in split(fixture.raw_output, pieces)])
        for pieces in PIECES
    }
    rows = checks.run_checks(fixture, family, Observation(read(fixture, family, [fixture.raw_output]), streams))
    return checks.case_status(rows), [row for row in rows if row.status is not Status.PASS]


def main() -> None:
    """Prints the table and the reasons."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--family", action="append", help="only this family; may be given more than once")
    asked = options.parse_args()
    families = load_families()
    counts: Counter[tuple[str, Status]] = Counter()
    reasons: list[str] = []
    for fixture in load_fixtures(families=asked.family):
        status, rows = judge(fixture, families[fixture.family])
        counts[fixture.family, status] += 1
        counts["all", status] += 1
        if rows:
            reasons.append(f"{status.value:9} {fixture.id}: {rows[0].check}: {rows[0].detail}")
    print(f"{'family':14} {'hard':>5} {'soft':>5} {'failed':>7} {'of':>5}")
    for name in (*sorted({name for name, _ in counts} - {"all"}), "all"):
        hard, soft = counts[name, Status.PASS], counts[name, Status.SOFT_PASS]
        total = sum(count for (family, _), count in counts.items() if family == name)
        print(f"{name:14} {hard:5} {soft:5} {total - hard - soft:7} {total:5}")
    print(*reasons, sep="\n")


if __name__ == "__main__":
    main()
