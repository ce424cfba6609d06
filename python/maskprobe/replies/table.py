# ruff: noqa: RUF001 (some models' markers are spelled with full-width bars)
"""The table of formats, and how a format is found from a chat template's text.

A template is never run for this: it names the markers that its model was trained to write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from maskprobe.replies.formats import Format
from maskprobe.replies.notations import (
    Braced,
    Calls,
    JsonObject,
    JsonPair,
    NamedJson,
    Pythonic,
    Tagged,
    Tags,
)

_HERMES = Calls(JsonObject(), open="<tool_call>\n", close="\n</tool_call>", between="\n")

_QWEN_XML = Calls(
    Tagged(
        name=("<function=", ">\n"),
        key="<parameter=",
        values=((">\n", "schema"),),
        value_end="\n</parameter>\n",
        end="</function>",
    ),
    open="<tool_call>\n",
    close="\n</tool_call>",
    between="\n",
    unopened=True,
)


def _dsml(gap: str, section: str) -> Calls:
    """DeepSeek's own markup; its versions differ in a blank and in the section's name."""
    tag = f"<｜DSML｜{gap}"
    close = f"</｜DSML｜{gap}"
    return Calls(
        Tagged(
            name=(f'{tag}invoke name="', '">\n'),
            key=f'{tag}parameter name="',
            values=(('" string="true">', "text"), ('" string="false">', "json")),
            value_end=f"{close}parameter>\n",
            end=f"{close}invoke>",
            alone='"/>',
        ),
        begin=f"{tag}{section}>\n",
        between="\n",
        end=f"\n{close}{section}>",
    )


def _invoke(space: str) -> Calls:
    """Calls as <invoke name=NAME> with <parameter name=KEY>, in a section of their own."""
    return Calls(
        Tagged(
            name=(f'<{space}invoke name="', '">\n'),
            key=f'<{space}parameter name="',
            values=(('">', "schema"),),
            value_end=f"</{space}parameter>\n",
            end=f"</{space}invoke>",
        ),
        between="\n",
    )


def _glm(tail: str, name_end: str) -> Tagged:
    """GLM's markup; `tail` stands at the end of each tag's name."""
    return Tagged(
        name=("", name_end),
        key=f"<arg_key{tail}>",
        values=((f"</arg_key{tail}>\n<arg_value{tail}>", "schema"),),
        value_end=f"</arg_value{tail}>\n",
        end=f"</tool_call{tail}>",
    )


def _deepseek(head: str, then: str, close: str) -> Calls:
    return Calls(
        NamedJson(then=then),
        begin="<｜tool▁calls▁begin｜>",
        open=f"<｜tool▁call▁begin｜>{head}",
        close=f"{close}<｜tool▁call▁end｜>",
        between="\n" if head else "",
        end="<｜tool▁calls▁end｜>",
        unbegun=True,
    )


_KIMI_TYPES = tuple(
    (f'" type="{name}"<|sep|>', "text" if name == "string" else "json")
    for name in ("string", "number", "integer", "boolean", "object", "array", "null")
)
_LLAMA_JSON = Calls(JsonObject(arguments=("parameters", "arguments")), between="; ", bare=True)
_PYTHON_LIST = Calls(Pythonic(), begin="[", between=", ", end="]", bare=True)
_MISTRAL_JSON = Calls(JsonObject(id="id"), begin="[TOOL_CALLS] [", between=", ", end="]")


@dataclass(frozen=True)
class _Known:
    """A format and its signs: a template that holds all texts of one of them is of this format."""

    format: Format
    signs: tuple[tuple[str, ...], ...]


_TABLE = (
    _Known(
        Format(
            "harmony",
            (
                Calls(
                    NamedJson(then=" <|constrain|>json<|message|>"),
                    open="<|channel|>commentary to=functions.",
                    close="<|call|>",
                ),
            ),
            reasoning=(),
            channels=True,
        ),
        (("<|channel|>analysis", "<|message|>"), ("<|start|>assistant<|channel|>",)),
    ),
    _Known(
        Format(
            "kimi-k3",
            (
                Calls(
                    Tagged(
                        name=('<|open|>call tool="', '" index="{n}"<|sep|>'),
                        key='<|open|>argument key="',
                        values=_KIMI_TYPES,  # type: ignore[arg-type]
                        value_end="<|close|>argument<|sep|>",
                        end="<|close|>call<|sep|>",
                        escaped=True,
                    ),
                    begin="<|open|>tools<|sep|>",
                    end="<|close|>tools<|sep|>",
                ),
            ),
            reasoning=(Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
            frames=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
            trims=False,
        ),
        (("<|open|>", "<|close|>", "<|end_of_msg|>"),),
    ),
    _Known(
        Format(
            "kimi-k2",
            (
                Calls(
                    NamedJson(then="<|tool_call_argument_begin|>", prefix="functions.", numbered=True),
                    begin="<|tool_calls_section_begin|>",
                    open="<|tool_call_begin|>",
                    close="<|tool_call_end|>",
                    end="<|tool_calls_section_end|>",
                    unbegun=True,
                ),
            ),
            trims=False,
        ),
        (("<|tool_calls_section_begin|>",),),
    ),
    _Known(Format("deepseek-v4.1", (_dsml(" ", "calls"),)), (("DSML｜ ", "invoke name"), ("｜DSML｜ invoke",))),
    _Known(Format("deepseek-v4", (_dsml("", "tool_calls"),)), (("DSML", "invoke name", "tool_calls>"),)),
    _Known(Format("deepseek-v3.2", (_dsml("", "function_calls"),)), (("DSML", "invoke name"),)),
    _Known(
        Format(
            "deepseek-v3",
            (
                _deepseek("function<｜tool▁sep｜>", "\n```json\n", "\n```"),
                _deepseek("", "<｜tool▁sep｜>", ""),
            ),
        ),
        (("<｜tool▁calls▁begin｜>", "```json"),),
    ),
    _Known(
        Format("deepseek-v3.1", (_deepseek("", "<｜tool▁sep｜>", ""),)),
        (("<｜tool▁calls▁begin｜>",),),
    ),
    _Known(
        Format(
            "gemma-4",
            (Calls(Braced(quote='<|"|>'), open="<|tool_call>call:", close="<tool_call|>"),),
            reasoning=(Tags("<|channel>thought\n", "<channel|>"),),
            trims=False,
        ),
        (("<|tool_call>call:",),),
    ),
    _Known(
        Format(
            "mistral",
            (
                Calls(NamedJson(then="[ARGS]", id="[CALL_ID]"), open="[TOOL_CALLS]"),
                _MISTRAL_JSON,
            ),
            reasoning=(Tags("[THINK]", "[/THINK]"), Tags("<think>", "</think>")),
        ),
        (("[TOOL_CALLS]", "[ARGS]"),),
    ),
    _Known(
        Format("mistral-json", (_MISTRAL_JSON, Calls(NamedJson(then="[ARGS]", id="[CALL_ID]"), open="[TOOL_CALLS]"))),
        (("[TOOL_CALLS]",),),
    ),
    _Known(
        Format(
            "hy3",
            (
                Calls(
                    _glm(":opensource", "<tool_sep:opensource>\n"),
                    begin="<tool_calls:opensource>\n",
                    open="<tool_call:opensource>",
                    between="\n",
                    end="\n</tool_calls:opensource>",
                ),
            ),
            reasoning=(Tags("<think:opensource>", "</think:opensource>"),),
        ),
        (("<arg_key{}>", ":opensource"),),
    ),
    _Known(
        Format("glm", (Calls(_glm("", "\n"), open="<tool_call>", between="\n"),)),
        (("<arg_key>", "<tool_call>"),),
    ),
    _Known(Format("qwen-xml", (_QWEN_XML, _HERMES)), (("<tool_call>", "<function="),)),
    _Known(
        Format(
            "seed-oss", (replace(_QWEN_XML, open="<seed:tool_call>\n", close="\n</seed:tool_call>", unopened=False),)
        ),
        (("seed:tool_call", "<function="), ("<seed:tool_call>",)),
    ),
    _Known(
        Format(
            "minimax-m2",
            (replace(_invoke(""), begin="<minimax:tool_call>\n", end="\n</minimax:tool_call>"),),
        ),
        (("<minimax:tool_call>", "<invoke name="),),
    ),
    _Known(
        Format(
            "command-r7b",
            (
                Calls(
                    JsonObject(name=("tool_name",), arguments=("parameters",), id="tool_call_id"),
                    begin="<|START_ACTION|>[",
                    between=", ",
                    end="]<|END_ACTION|>",
                ),
            ),
            frames=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        ),
        (("<|START_ACTION|>",),),
    ),
    _Known(
        Format("apertus", (Calls(JsonPair(), begin="<|tools_prefix|>[", between=", ", end="]<|tools_suffix|>"),)),
        (("<|tools_prefix|>",),),
    ),
    _Known(
        Format("nemotron", (Calls(JsonObject(), begin="<TOOLCALL>[", between=", ", end="]</TOOLCALL>"),)),
        (("<TOOLCALL>",),),
    ),
    _Known(
        Format("granite", (Calls(JsonObject(), begin="<|tool_call|>[", between=", ", end="]"),)),
        (("<|tool_call|>",),),
    ),
    _Known(
        Format(
            "minimax-m1",
            (Calls(JsonObject(), begin="<tool_calls>\n", between="\n", end="\n</tool_calls>"),),
        ),
        (("<tool_calls>", "]~b]"), ("<tool_calls>", "<beginning_of_sentence>")),
    ),
    _Known(
        Format("apriel", (Calls(JsonObject(id="id"), begin="<tool_calls>[", between=", ", end="]</tool_calls>"),)),
        (("<tool_calls>",),),
    ),
    _Known(
        Format("functools", (Calls(JsonObject(), begin=" functools[", between=", ", end="]"),)),
        (("functools[",),),
    ),
    _Known(
        Format("lfm2", (Calls(Pythonic(), begin="<|tool_call_start|>[", between=", ", end="]<|tool_call_end|>"),)),
        (("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [",)),
    ),
    _Known(
        Format("gigachat", (Calls(JsonObject(), open="<|function_call|>"),)),
        (("<|function_call|>",),),
    ),
    _Known(
        Format(
            "minicpm5",
            (
                Calls(
                    Tagged(
                        name=('<function name="', '">'),
                        key='<param name="',
                        values=(('">', "schema"),),
                        value_end="</param>",
                        end="</function>",
                        cdata=True,
                    ),
                    between="\n",
                ),
            ),
        ),
        (('<function name="', '<param name="'),),
    ),
    _Known(Format("minimax-m3"), (("]<]minimax[>[",),)),  # nested tags named by the tools' schemas: not read
    _Known(Format("hermes", (_HERMES,)), (("<tool_call>",), ("xml_tools",))),
    _Known(
        Format(
            "functionary-v3.1",
            (Calls(NamedJson(then=">"), open="<function=", close="</function>"),),
        ),
        (("<function=", "</function>", "python_tag"),),
    ),
    _Known(
        Format(
            "llama-4",
            (_PYTHON_LIST, _LLAMA_JSON),
            frames=("<|python_start|>", "<|python_end|>"),
            trims=False,
        ),
        (("<|header_start|>",),),
    ),
    _Known(
        Format("llama-3", (_LLAMA_JSON, replace(_LLAMA_JSON, open="<|python_tag|>", bare=False)), trims=False),
        (("<|start_header_id|>", '"parameters"'),),
    ),
)

FORMATS: dict[str, Format] = {known.format.name: known.format for known in _TABLE}

_REASONING = (
    Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("<|channel>thought\n", "<channel|>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),
    Tags("<|think|>", "<|end|>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<reasoning>", "</reasoning>"),
)

PLAIN = Format("plain")


def named(name: str) -> Format:
    """The format of that name; a ValueError names those there are."""
    if name == PLAIN.name:
        return PLAIN
    if name not in FORMATS:
        raise ValueError(f"{name!r} is no format of replies: {', '.join(sorted(FORMATS))} or {PLAIN.name}")
    return FORMATS[name]


def find_format(template: str | None) -> Format:
    """The format whose markers a chat template names; without any (or a template), PLAIN: no calls, <think> tags."""
    text = template or ""
    for known in _TABLE:
        if any(all(part in text for part in sign) for sign in known.signs):
            return _with_reasoning(known.format, text)
    return _with_reasoning(PLAIN, text)


def _with_reasoning(form: Format, template: str) -> Format:
    """The format with the tags that the template itself names; with its own if it names none."""
    found = tuple(tags for tags in _REASONING if tags.begin.strip() in template and tags.end in template)
    return replace(form, reasoning=found) if found and not form.channels else form
