"""``maskprobe chat``: a conversation in the terminal, or line by line through a pipe.

Knows messages, commands and figures; leaves editing and history to chat_input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ContextError, MaskProbeError, ModelError
from ..generation.request import Options
from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from ..results import Chunk, Stats
from .app import app
from .chat_input import piped_messages, typed_messages
from .drafted import ShowDraftsOption, show_chunks
from .groups import grouped
from .loading import Adapted
from .options import ModelOption, SpeculationOption, note, warn
from .sampling import Answering, SystemOption, ThinkOption, template_variables
from .terminal import pipes, write

HELP = """\
/reset         begin a new conversation; the system message stays
/system TEXT   set the system message; without TEXT, remove it
/stats         figures of the last answer and of this chat
/save FILE     write the messages to a new JSON file
/help          this list
/exit          leave, as does Ctrl-D
A message goes on in the next line after Alt+Enter or a \\ at its end. Ctrl-C stops an answer."""


@app.command()
@grouped
def chat(
    *,
    model: ModelOption = None,
    system: SystemOption = None,
    think: ThinkOption = None,
    max_tokens: Annotated[int, typer.Option(help="At most so many tokens per answer.")] = 1024,
    answering: Answering,
    speculation: SpeculationOption = "",
    show_drafts: ShowDraftsOption = False,
    loading: Adapted,
) -> None:
    """Chat with a model. /help lists what else can be said; without a terminal, each line is a message."""
    options = answering.options(max_tokens)
    settings = parse_speculation(speculation)
    with pipes(), MaskProbeLlama(resolve_model(model), speculation=settings, **loading.arguments()) as llm:
        name = llm.model_path.name
        if not llm.has_chat_template():
            raise ModelError(
                f"{name} has no chat template, so it cannot chat; maskprobe generate --raw continues a text"
            )
        llm.stream([0], **options)  # checks the options now, and decodes nothing
        variables = template_variables(llm, think)
        conversation = Conversation(llm, options, system, variables, show_drafts=show_drafts)
        if sys.stdin.isatty():
            note(f"{name}, {llm.n_ctx()} tokens of context. /help lists commands.")
            _talk(conversation, typed_messages(), interactive=True)
        else:
            _talk(conversation, piped_messages(sys.stdin), interactive=False)


class Conversation:
    """The messages of a chat and the figures of its answers."""

    def __init__(
        self,
        llm: MaskProbeLlama,
        options: Options,
        system: str | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        show_drafts: bool = False,
    ) -> None:
        self._llm = llm
        self._options = options
        self._variables = variables  # of the chat template
        self.show = show_chunks(shaded=show_drafts)
        self.system = system
        self.turns: list[dict[str, str]] = []  # by user and assistant, in turn
        self.answers: list[Stats] = []  # of finished answers, also of those that were reset

    @property
    def messages(self) -> list[dict[str, str]]:
        """All messages, as chat templates take them."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def answer(self, text: str) -> Generator[Chunk, None, None]:
        """Streams the answer to a message. What has come when it stops, for whatever reason, is kept.

        Raises:
            ContextError: the conversation has outgrown the context; it is as before.
        """
        question = {"role": "user", "content": text}
        ids = self._llm.apply_chat_template([*self.messages, question], chat_template_kwargs=self._variables)
        pieces: list[str] = []
        try:
            with closing(self._llm.stream(ids, **self._options)) as stream:
                for chunk in stream:
                    pieces.append(chunk.text)
                    yield chunk
            assert chunk.stats is not None
            self.answers.append(chunk.stats)
        finally:
            if pieces:
                self.turns += [question, {"role": "assistant", "content": "".join(pieces)}]

    def is_full(self) -> bool:
        """Whether the last answer ended because the context was full."""
        last = self.answers[-1]
        return last.cache_n + last.prompt_n + last.predicted_n >= self._llm.n_ctx()

    def n_ctx(self) -> int:
        """Tokens that the conversation may have."""
        return self._llm.n_ctx()


def _talk(conversation: Conversation, lines: Iterable[str], *, interactive: bool) -> None:
    for line in lines:
        if line.startswith("/"):
            if not _command(conversation, line):
                return
        elif line.strip():
            before = len(conversation.turns)
            try:
                _reply(conversation, line)
            except KeyboardInterrupt:
                if not interactive:
                    raise
                write("\n")
                came = len(conversation.turns) > before
                note(f"stopped; {'what came stays in the conversation' if came else 'the question is taken back'}")


def _reply(conversation: Conversation, text: str) -> None:
    """One answer and its line of figures, or the line that says why there is none."""
    try:
        with closing(conversation.answer(text)) as chunks:
            for chunk in chunks:
                conversation.show(chunk)
    except ContextError:
        warn(
            f"the conversation no longer fits n_ctx={conversation.n_ctx()}; "
            "/reset begins a new one, a shorter message or a larger --n-ctx may fit"
        )
    except (MaskProbeError, ValueError) as error:
        warn(str(error))
    else:
        write("\n")
        note(str(conversation.answers[-1]))
        if conversation.is_full():
            warn(f"the context of n_ctx={conversation.n_ctx()} tokens is full; /reset begins a new conversation")


def _command(conversation: Conversation, line: str) -> bool:
    """Does what a line that begins with / asks for. Returns whether the chat goes on."""
    name, _, argument = line.strip().partition(" ")
    argument = argument.strip()
    if name in ("/exit", "/quit"):
        return False
    if name == "/help":
        note(HELP)
    elif name == "/reset":
        conversation.turns.clear()
        note("a new conversation begins")
    elif name == "/system":
        conversation.system = argument or None
        note(f"system message: {argument}" if argument else "no system message")
    elif name == "/stats":
        note("\n".join(_figures(conversation.answers)))
    elif name == "/save":
        _save(conversation, argument)
    else:
        warn(f"unknown command {name}; /help lists them, a leading space makes it a message")
    return True


def _figures(answers: list[Stats]) -> Iterator[str]:
    if not answers:
        yield "no answer yet"
        return
    last = answers[-1]
    yield f"last answer: {last}"
    yield f"  prompt: {last.cache_n + last.prompt_n} tokens, {last.cache_n} of them in the KV cache already"
    yield f"  drafts: {last.draft_n_accepted} of {last.draft_n} accepted, {last.rows_per_pass:.1f} rows per pass"
    if last.choice:
        yield f"  rows: {last.choice}"
    tokens, passes = (sum(getattr(stats, name) for stats in answers) for name in ("predicted_n", "passes"))
    seconds = sum(stats.predicted_ms for stats in answers) / 1e3
    accepted = (tokens - len(answers)) / passes if passes else 1.0  # each first token comes with the prompt
    yield (
        f"this chat: {len(answers)} answers, {tokens} tokens in {passes} passes, acceptance length {accepted:.2f}, "
        f"{tokens / seconds:.1f} tokens/s"
    )


def _save(conversation: Conversation, name: str) -> None:
    if not name:
        warn("/save needs the name of a file")
        return
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(conversation.messages, file, ensure_ascii=False, indent=2)
            file.write("\n")
    except FileExistsError:
        warn(f"{path} exists and is kept; choose another name")
    except OSError as error:
        warn(f"cannot write {path}: {error.strerror}; choose another name")
    else:
        note(f"{len(conversation.messages)} messages written to {path}")
