"""How chat templates render what clients send: a plain chat, an agent's conversation, and the rest of an answer.

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
    python bench/templates.py llama_cpp_python-0.3.36/vendor/llama.cpp/models/templates

Conversations are in OpenAI's form, content null, arguments and ids as clients send them. A prompt is right if every
text of a message, every value of an argument and every result is in it once, in the order of the messages (the
system's wherever the template has it), every called function by name, every tool with its description, and nothing of
the arguments encoded twice or as Python. `--fail-under N` exits with 1 if fewer than N render the agent's conversation.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maskprobe.chat.formats import ChatFormats
from maskprobe.chat.requests import checked_chat

Messages = list[dict[str, Any]]


def call(id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def tool(name: str, description: str) -> dict[str, Any]:
    properties = {
        "town": {"type": "string", "description": f"{description} where"},
        "nights": {"type": "integer"},
        "room": {"type": "object", "properties": {"view": {"type": "string"}}},
        "pets": {"type": ["boolean", "null"], "default": None},
    }
    parameters = {"type": "object", "properties": properties, "required": ["town"]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [tool("find_hotel", "Hostelry"), tool("find_train", "Locomotion")]
PLAIN = [
    {"role": "system", "content": "Wsystem"},
    {"role": "user", "content": [{"type": "text", "text": "Wfirst"}, {"type": "text", "text": "Wsecond"}]},
    {"role": "assistant", "content": "Wanswer"},
    {"role": "user", "content": "Wagain"},
    {"role": "user", "content": "Wmore"},
]
DEVELOPER = [{"role": "developer", "content": "Wsystem"}, *PLAIN[1:]]
BARE = [{"role": "user", "content": "Wfirst"}]
AGENT = [
    {"role": "system", "content": "Wsystem"},
    {"role": "user", "content": "Wfirst"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            call("call_b8fYk20GzQ", "find_hotel", town="Wbergen", nights=86420, room={"view": "Wfjord"}, pets=True)
        ],
    },
    {"role": "tool", "tool_call_id": "call_b8fYk20GzQ", "content": '{"hotel": "Wpalace"}'},
    {"role": "assistant", "content": "Wanswer"},
    {"role": "user", "content": "Wagain"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            call("call_Qm3aRt77Lx", "find_hotel", town="Wodda"),
            call("call_Zz9eUw41Ko", "find_train", town="Wvoss"),
        ],
    },
    {"role": "tool", "tool_call_id": "call_Qm3aRt77Lx", "content": "Wcottage"},
    {"role": "tool", "tool_call_id": "call_Zz9eUw41Ko", "content": [{"type": "text", "text": "Wnoon"}]},
    {"role": "assistant", "content": "Wdone"},
    {"role": "user", "content": "Wthanks"},
]
ANSWERING = AGENT[:4]  # ends with a result, as most requests of agents do
BESIDE = [{**message, "content": message["content"] or f"Wbeside{i}"} for i, message in enumerate(AGENT)]
PREFILL = [*PLAIN[:2], {"role": "assistant", "content": "Wbegun and "}]
NAMES = ("find_hotel", "find_train")


def faults(prompt: str, messages: Messages, tools: Any) -> list[str]:
    """What is wrong with the prompt of a conversation."""
    found = []
    at = 0
    for group in groups(messages):
        words = [word for text in strings_in(group) for word in re.findall(r"W\w+|86420", text)]
        found += [f"{word} {prompt.count(word)} times" for word in words if prompt.count(word) != 1]
        places = [prompt.index(word) for word in words if word in prompt and word != "Wsystem"]
        if places and min(places) < at:
            found.append(f"{words} out of order")
        at = max([at, *places])
    for text in strings_in([message.get("tool_calls", ()) for message in messages]):
        if text in NAMES and text not in prompt:
            found.append(f"no {text}")
    for described in tools or ():
        found += [f"no {text}" for text in strings_in(described["function"]["description"]) if text not in prompt]
    found += [f"{key} encoded twice" for key in ("town", "view") if re.search(rf'\\"{key}\\": *\\"', prompt)]
    found += [f"{key} as Python" for key in ("town", "view") if re.search(rf"'{key}': *'W", prompt)]
    if re.search(r"(?<![=\w])True", prompt) or '"86420"' in prompt:
        found.append("a value as Python, or as text")
    return found


def strings_in(value: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_in(item)


def groups(messages: Messages) -> list[Messages]:
    """Messages whose words come in order; several calls may each have their result behind them."""
    together: list[Messages] = []
    for message in messages:
        if message["role"] == "tool" and together:
            together[-1].append(message)
        else:
            together.append([message])
    return together


def prompt_of(formats: ChatFormats, messages: Messages, tools: Any) -> str:
    chat = checked_chat(messages, tools)
    rendering = formats.rendering(chat)
    return rendering.prompt(rendering.translated(chat)).text


def agents(messages: Messages, tools: Any = TOOLS) -> Callable[[ChatFormats], list[str]]:
    return lambda formats: faults(prompt_of(formats, messages, tools), messages, tools)


def prefill(formats: ChatFormats) -> list[str]:
    prompt = prompt_of(formats, PREFILL, None)
    return faults(prompt, PREFILL, None) + ([] if prompt.endswith("Wbegun and ") else ["it goes on behind the answer"])


CASES: dict[str, Callable[[ChatFormats], list[str]]] = {
    "plain": agents(PLAIN, None),
    "bare": agents(BARE, None),
    "developer": agents(DEVELOPER, None),
    "agent": agents(AGENT),
    "answering": agents(ANSWERING),
    "no tools any more": agents(AGENT, None),
    "text beside calls": agents(BESIDE),
    "prefill": prefill,
}


def judged(text: str) -> dict[str, list[str]]:
    """The faults of a template by case."""
    formats = ChatFormats("the model", {"tokenizer.chat_template": text}, "<s>", "</s>", None, None)
    found = {}
    for name, case in CASES.items():
        try:
            found[name] = case(formats)
        except ValueError as error:
            found[name] = [str(error)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of .jinja files")
    parser.add_argument("--fail-under", type=int, default=0, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    results = {path.stem: judged(path.read_text("utf-8")) for path in sorted(arguments.folder.glob("*.jinja"))}
    for name, found in results.items():
        bad = [f"{case}: {found[case][0]:.90}" for case in CASES if found[case]]
        print(f"{name:50}", "; ".join(bad) or "ok")
    for case in CASES:
        print(f"{case:20} {sum(not found[case] for found in results.values())} of {len(results)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    sys.exit(sum(not found["agent"] for found in results.values()) < arguments.fail_under)


if __name__ == "__main__":
    main()
