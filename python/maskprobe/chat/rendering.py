"""Chats as prompts of one template: in the dialect that it was found to take, for an answer or for the rest of one.

Knows the order of these steps; leaves templates, dialects and how they are found to others, and time limits to formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import Any

from .dialects import Dialect, Message, translated
from .handlers import Formatted
from .probing import find_agent_dialect, find_chat_dialect
from .requests import Chat

Render = Callable[..., Formatted]  # of messages and variables; raises ValueError for what it refuses


class Rendering:
    """A template at work.

    Args:
        render: makes its prompts.
        limited: runs a call that may take as long as one rendering, and raises what the call raises.
    """

    def __init__(self, render: Render, limited: Callable[[Callable[[], Any]], Any]) -> None:
        self._render = render
        self._limited = limited
        self._chat: Dialect | None = None  # not known yet
        self._agent: Dialect | None = None

    def translated(self, chat: Chat) -> Chat:
        """The chat as the template wants it: other messages, and tools among the variables.

        Raises:
            ValueError: arguments in the history are no JSON object, and the template needs one.
        """
        dialect = self._agent_dialect() if chat.is_agents() else self._chat_dialect()
        tools = chat.tools
        if dialect.tools == "described" and chat.variables.get("tool_choice") == "none":
            tools = None
        elif tools and not self._takes(dialect, tools):
            dialect = dialect._replace(tools="described")
        messages, variables = translated(dialect, chat.messages, tools)
        return replace(chat, messages=messages, variables={**chat.variables, **variables})

    def tells_how_to_call(self, chat: Chat) -> bool:
        """Whether its template has no form for calls, so that :meth:`translated` tells the model a form in words."""
        dialect = self._agent_dialect() if chat.tools else None
        return dialect is not None and dialect.tools == "described" and not dialect.calls

    def prompt(self, chat: Chat) -> Formatted:
        """The prompt of a translated chat.

        Raises:
            ValueError: the template refuses the messages, or cannot continue the last one.
        """
        if not chat.continued:
            return self._asked(chat, chat.messages, chat.add_generation_prompt)
        *before, last = chat.messages
        mark = token_hex(8)  # which no message can hold
        try:
            whole = self._asked(chat, [*before, _ending_in(mark, last)], False)
        except ValueError:  # some templates take no conversation that ends with the assistant
            whole = Formatted("", [])
        if mark in whole.text:
            return Formatted(whole.text.rpartition(mark)[0], whole.stop)
        if not isinstance(last["content"], str) or (not last["content"] and _reasoning_key(last)):
            raise ValueError("the chat template does not continue the last of the messages")
        begun = self._asked(chat, before, True)
        return Formatted(begun.text + last["content"], begun.stop)

    def _asked(self, chat: Chat, messages: list[Message], add_generation_prompt: bool) -> Formatted:
        call = partial(self._render, messages=messages, add_generation_prompt=add_generation_prompt, **chat.variables)
        answer: Formatted = self._limited(call)
        return answer

    def _chat_dialect(self) -> Dialect:
        if self._chat is None:
            self._chat = self._limited(partial(find_chat_dialect, self._tried))
        return self._chat

    def _agent_dialect(self) -> Dialect:
        if self._agent is None:
            self._agent = self._limited(partial(find_agent_dialect, self._tried, self._chat_dialect()))
        return self._agent

    def _takes(self, dialect: Dialect, tools: list[dict[str, Any]]) -> bool:
        """Whether the template can show these tools: some stumble over what their schemas hold."""
        messages, variables = translated(dialect, [{"role": "user", "content": "Hello"}], tools)
        try:
            self._limited(partial(self._tried, messages, **variables))
        except ValueError:
            return False
        return True

    def _tried(self, messages: list[Message], **variables: Any) -> str:
        try:
            return self._render(messages=messages, add_generation_prompt=True, **variables).text
        except Exception as error:  # whatever the program raises, this dialect is not its
            raise ValueError(str(error)) from error


def _reasoning_key(message: Message) -> str | None:
    """The key under which a message has reasoning."""
    return next((key for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), None)


def _ending_in(mark: str, message: Message) -> Message:
    """The message, with a mark where its text ends: of its content, or of reasoning without an answer."""
    content = message["content"]
    if not content and (key := _reasoning_key(message)):
        return {**message, key: f"{message[key]}{mark}"}
    if isinstance(content, list) and content and isinstance(content[-1], Mapping) and "text" in content[-1]:
        return {**message, "content": [*content[:-1], {**content[-1], "text": f"{content[-1]['text']}{mark}"}]}
    return {**message, "content": f"{content or ''}{mark}"}
