"""Finds a template's dialect: renders a made-up conversation in several, and looks which one loses nothing.

The same is asked of every template, whatever its model is called. Knows no templates, only what they make.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from .dialects import Dialect, Messages, Tools, translated

Render = Callable[..., str]  # of messages and variables
Change = dict[str, Any]  # of a dialect's fields

_MOST_CHANGES = 4  # at once
# What a template may have a form of its own for, and what becomes text where it has none.
_OWN_FORMS: list[Change] = [
    {"empty": None},
    {"arguments": "flat"},
    {"arguments": "text"},
    {"short_ids": True},
    {"one_each": True},
    {"tools": "functions"},
]
_AS_TEXT: list[Change] = [{"tools": "described"}, {"calls": False}, {"results": False}]


class _Conversation(NamedTuple):
    """What is rendered, and what must come out of it.

    Args:
        words: of each message in their order; those of one message in any order.
        shown: that must be there wherever, and may be several times.
    """

    messages: Messages
    words: list[str]
    tools: Tools | None = None
    shown: tuple[str, ...] = ()


def find_chat_dialect(render: Render) -> Dialect:
    """The dialect of chats without tools.

    Args:
        render: makes a prompt of messages and variables, or raises ValueError.
    """
    changes: list[Change] = [{"system": "first"}, {"joined": True}, {"parts": True}, {"system": "never"}]
    dialect = _best(render, Dialect(), changes, _CHAT)
    return dialect._replace(developer=_knows_developer(render, dialect))


def find_agent_dialect(render: Render, chat: Dialect) -> Dialect:
    """The dialect of chats with tools, on top of that of chats.

    Args:
        render: as before; the template may be another one.
    """
    dialect = _best(render, chat, _OWN_FORMS, _AGENT)
    if _judged(render, dialect, _AGENT).lost:
        dialect = _best(render, dialect, _AS_TEXT, _AGENT)
    dialect = _best(render, dialect, [{"apart": True}], _TEXT_BESIDE_CALLS)
    return _best(render, dialect, [{"reasoning": "thinking"}, {"reasoning": "reasoning"}], _REASONING)


def _best(render: Render, base: Dialect, changes: Sequence[Change], probe: _Conversation) -> Dialect:
    """The dialect that loses least; of several the one with the fewest changes, and these the first of the list."""
    best, faults = base, _judged(render, base, probe)
    for dialect in _variants(base, changes):
        if faults == (0, 0):
            break
        if (found := _judged(render, dialect, probe)) < faults:
            best, faults = dialect, found
    return best


def _variants(base: Dialect, changes: Sequence[Change]) -> Iterator[Dialect]:
    for n in range(1, _MOST_CHANGES + 1):
        for some in combinations(changes, n):
            fields = {field: value for change in some for field, value in change.items()}
            if len(fields) == n:
                yield base._replace(**fields)


class _Faults(NamedTuple):
    """What is wrong with a prompt; a word that is lost is worse than any number of slips."""

    lost: int
    slips: int


def _judged(render: Render, dialect: Dialect, probe: _Conversation) -> _Faults:
    messages, variables = translated(dialect, probe.messages, probe.tools)
    try:
        prompt = render(messages, **variables)
    except ValueError:
        return _Faults(10 * len(probe.words), 0)
    return _Faults(_lost(prompt, probe), sum(prompt.count(slip) for slip in _SLIPS))


def _lost(prompt: str, probe: _Conversation) -> int:
    """How many words are not there once, or not in the order of the messages."""
    lost = sum(word not in prompt for word in probe.shown)
    at = 0
    for of_message in probe.words:
        once = [word for word in of_message.split() if prompt.count(word) == 1]
        places = [prompt.index(word) for word in once]
        lost += len(of_message.split()) - len(once) + (min(places, default=at) < at)
        at = max([at, *places])
    return lost


def _knows_developer(render: Render, chat: Dialect) -> bool:
    """Whether the role is more than a word to the template, which writes any word into a header."""

    def shown(role: str) -> str | None:
        try:
            prompt = render([{"role": role, "content": "Rules"}, {"role": "user", "content": "Hello"}])
        except ValueError:
            return None
        return prompt if "Rules" in prompt else None

    asked, other = shown("developer"), shown("stranger")
    return asked is not None and (other is None or other.replace("stranger", "developer") != asked)


# --- the conversations --------------------------------------------------------------------------------

_SLIPS = ("True", '"27182"')  # a value as Python, a number as text


def _call(id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def _tool(name: str, description: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "description": "A name"}}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_CHAT = _Conversation(
    [
        {"role": "system", "content": "Probe1"},
        {"role": "user", "content": "Probe2"},
        {"role": "user", "content": "Probe3"},
        {"role": "assistant", "content": "Probe4"},
        {"role": "system", "content": "Probe5"},
        {"role": "user", "content": "Probe6"},
    ],
    [f"Probe{i}" for i in range(1, 7)],
)
_AGENT = _Conversation(
    [
        {"role": "system", "content": "Probe1"},
        {"role": "user", "content": "Probe2"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                _call(
                    "probeid_0001", "probe_first", probecity="Probe3", days=27182, sure=True, at={"probezone": "Probe4"}
                )
            ],
        },
        {"role": "tool", "tool_call_id": "probeid_0001", "content": '{"is": "Probe5"}'},
        {"role": "assistant", "content": "Probe6"},
        {"role": "user", "content": "Probe7"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                _call("probeid_0002", "probe_first", probecity="Probe8"),
                _call("probeid_0003", "probe_second", probecity="Probe9"),
            ],
        },
        {"role": "tool", "tool_call_id": "probeid_0002", "content": "ProbeA"},
        {"role": "tool", "tool_call_id": "probeid_0003", "content": "ProbeB"},
        {"role": "assistant", "content": "ProbeC"},
        {"role": "user", "content": "ProbeD"},
    ],
    [f"Probe{i}" for i in ("1", "2", "3 27182 Probe4", "5", "6", "7", "8 Probe9 ProbeA ProbeB", "C", "D")],
    [_tool("probe_first", "ProbeX"), _tool("probe_second", "ProbeY")],
    ("ProbeX", "ProbeY", "probe_first", "probe_second"),
)
_TEXT_BESIDE_CALLS = _Conversation(
    [
        {"role": "user", "content": "Probe1"},
        {
            "role": "assistant",
            "content": "Probe2",
            "tool_calls": [_call("probeid_0001", "probe_first", probecity="Probe3")],
        },
        {"role": "tool", "tool_call_id": "probeid_0001", "content": "Probe4"},
        {"role": "assistant", "content": "Probe5"},
        {"role": "user", "content": "Probe6"},
    ],
    [f"Probe{i}" for i in range(1, 7)],
    [_tool("probe_first", "ProbeX")],
)
_REASONING = _Conversation(
    [
        {"role": "user", "content": "Probe1"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Probe2",
            "tool_calls": [_call("probeid_0001", "probe_first", probecity="Probe3")],
        },
        {"role": "tool", "tool_call_id": "probeid_0001", "content": "Probe4"},
    ],
    [f"Probe{i}" for i in range(1, 5)],
    [_tool("probe_first", "ProbeX")],
)
