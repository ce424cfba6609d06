"""Prompt files in SpecBench's format, and which of their questions a benchmark takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MaskProbeError
from ..llama import MaskProbeLlama

_LOOPING = 0.7  # an output whose share of distinct 4-grams is below this repeats itself


@dataclass(frozen=True)
class Case:
    """One prompt: the first turn of a SpecBench question."""

    question_id: int | str
    category: str
    text: str


def read_prompts(path: Path) -> list[Case]:
    """Reads JSON lines with question_id, category and turns.

    Raises:
        MaskProbeError: the file cannot be read or a line does not fit; the message names the line.
    """
    try:
        # Not splitlines: a JSON text may hold the other characters that it takes for the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MaskProbeError(f"prompt file {path} cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cases.append(_case(json.loads(line)))
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise MaskProbeError(f"{path}, line {number}: not a SpecBench question ({error!r})") from error
    if not cases:
        raise MaskProbeError(f"{path} holds no prompts")
    return cases


def _case(question: Any) -> Case:
    case = Case(question["question_id"], str(question["category"]), question["turns"][0])
    if not isinstance(case.question_id, (int, str)):
        raise TypeError("question_id is neither a number nor a text")
    if not isinstance(question["turns"], list) or not isinstance(case.text, str) or not case.text:
        raise ValueError("the first turn is not a text")
    f"{case.question_id}{case.category}{case.text}".encode()  # raises for half a character
    return case


def choose(
    llm: MaskProbeLlama, cases: Sequence[Case], limit: int | None, max_prompt_tokens: int
) -> list[tuple[Case, list[int]]]:
    """The prompts to run, with their ids: short enough, and at most limit, taken from all categories in turn.

    Raises:
        MaskProbeError: none is short enough.
    """
    by_category: dict[str, list[tuple[Case, list[int]]]] = {}
    for case in cases:
        ids = llm.apply_chat_template([{"role": "user", "content": case.text}])
        if len(ids) <= max_prompt_tokens:
            by_category.setdefault(case.category, []).append((case, ids))
    rounds = max(map(len, by_category.values()), default=0)
    in_turn = [group[i] for i in range(rounds) for group in by_category.values() if i < len(group)]
    if not in_turn:
        raise MaskProbeError(f"no prompt has at most {max_prompt_tokens} tokens; raise --max-prompt-tokens")
    return in_turn[:limit]


def is_looping(tokens: Sequence[int]) -> bool:
    """Whether an output repeats itself: few of its 4-grams are distinct. Loops flatter every drafter."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return bool(grams) and len(set(grams)) / len(grams) < _LOOPING
