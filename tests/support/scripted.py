"""A model that writes what a script says, by a grammar that allows nothing else: all that follows is the package's own.

Its template tells of tools as Hermes' and Qwen's do, so that the calls in the script are read as theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from server_fixtures import serving

from maskprobe import MaskProbeLlama, embedded_model
from maskprobe.chat.formats import ChatFormats

TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{{- 'Tools:\\n<tools>' }}{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
{{- '\\n</tools>\\nCall:\\n<tool_call>\\n{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role != 'system' or not loop.first %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- if call.function.arguments is string %}{{ call.function.arguments }}
{%- else %}{{ call.function.arguments | tojson }}{% endif %}{{ '}\\n</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def call(name: str, /, **arguments: Any) -> str:
    """A call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class ScriptedLlama(MaskProbeLlama):
    """Answers chats by a script, one text after another; what a schema or a tool choice enforces is the model's own.

    ``asked`` holds the arguments of all chats so far.
    """

    def __init__(self, n_ctx: int) -> None:
        super().__init__(embedded_model(), n_ctx=n_ctx, n_threads=2, seed=1)
        self.chat_formats = ChatFormats(
            "scripted", {"tokenizer.chat_template": TEMPLATE}, "<|im_start|>", "<|im_end|>", None, None
        )
        self.script: list[str] = []
        self.without_tools: str | None = None
        self.asked: list[dict[str, Any]] = []

    def create_chat_completion(self, messages: Sequence[Mapping[str, Any]], *rest: Any, **options: Any) -> Any:
        self.asked.append({"messages": messages, **options})
        wanted = options.get("response_format") or {"type": "text"}
        enforced = wanted.get("type") not in ("text", "json_object") or "schema" in wanted
        enforced |= options.get("tool_choice") not in (None, "auto", "none")
        aside = None if options.get("tools") else self.without_tools
        if (self.script or aside) and not enforced:
            options["grammar"] = "root ::= " + json.dumps(aside or self.script.pop(0))
            options["response_format"] = None  # any JSON: the script's
        return super().create_chat_completion(messages, *rest, **options)

    def says(self, *texts: str, without_tools: str | None = None) -> None:
        """Begins a new script.

        Args:
            without_tools: said to whoever offers none, a title say; None = the next text.
        """
        self.script, self.asked, self.without_tools = list(texts), [], without_tools

    def roles(self, i: int = -1) -> list[str]:
        """Who spoke in the i-th chat."""
        return [message["role"] for message in self.asked[i]["messages"]]


@contextmanager
def scripted(n_ctx: int = 8192) -> Iterator[tuple[ScriptedLlama, str]]:
    """A scripted model and the URL where it is served."""
    with ScriptedLlama(n_ctx) as llm, serving(llm) as url:
        yield llm, url
