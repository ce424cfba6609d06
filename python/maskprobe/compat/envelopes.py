"""Text completions in the shape of llama-cpp-python and the OpenAI API, made from a stream of chunks.

Knows dictionaries; leaves prompts, sampling and decoding to MaskProbeLlama.
"""

from __future__ import annotations

import codecs
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..results import Chunk

Piece = Callable[[int, bool], bytes]  # the bytes of one token; control tokens have some only if the flag says so


@dataclass(frozen=True)
class Scored:
    """A token of the text with its log-probability, and what ranks highest in its place."""

    offset: int  # of the token in the text, in characters
    piece: bytes
    logprob: float
    top: list[tuple[bytes, float]]


Shape = Callable[[list[Scored]], dict[str, Any]]  # how an API says log-probabilities


def completion_logprobs(tokens: list[Scored]) -> dict[str, Any]:
    """Log-probabilities as OpenAI's completions have them, which name tokens by their text."""
    return {
        "tokens": [text_of(token.piece) for token in tokens],
        "text_offset": [token.offset for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_by_text([*token.top, (token.piece, token.logprob)]) for token in tokens],
    }


def _by_text(ranked: list[tuple[bytes, float]]) -> dict[str, float]:
    """Log-probabilities by text; where tokens have the same text, the likeliest one's."""
    texts: dict[str, float] = {}
    for piece, logprob in ranked:
        texts.setdefault(text_of(piece), logprob)
    return texts


def text_of(piece: bytes) -> str:
    """The text of a token; one that ends within a character is named by its bytes, as OpenAI does."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


@dataclass
class Envelope:
    """What all chunks of one completion have in common."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(
        self, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None, drafted: Sequence[bool] = ()
    ) -> dict[str, Any]:
        """A text_completion with one choice, which says of its tokens whether they were drafted if there is a list."""
        choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice | {"drafted": list(drafted)} if drafted else choice],
        }


def stream_completion(
    chunks: Iterator[Chunk],
    envelope: Envelope,
    n_prompt: int,
    before: str,
    piece: Piece,
    shape: Shape = completion_logprobs,
    *,
    return_drafted: bool = False,
) -> Iterator[dict[str, Any]]:
    """One dictionary per piece of text; the last has the finish reason, the usage and the timings.

    Args:
        chunks: of the generation.
        n_prompt: tokens of the prompt.
        before: text in front of the completion: the prompt, where it is echoed.
        piece: names tokens in logprobs.
        shape: of logprobs.
        return_drafted: whether parts say which of their tokens were drafted: those since the part before.
    """
    if before:
        yield envelope.wrap(before, None, None)
    logprobs = _Logprobs(before, piece, shape)
    drafted: list[bool] = []  # of the tokens since the last part
    n_completion = 0
    for chunk in chunks:
        n_completion += len(chunk.tokens)
        logprobs.add(chunk)
        if return_drafted:
            drafted += [chunk.from_draft] * len(chunk.tokens)
        if chunk.finish_reason is not None:
            assert chunk.stats is not None, "a stream ends with its figures"
            figures = logprobs.take()
            if chunk.text or figures:
                yield envelope.wrap(chunk.text, figures, None, drafted)
            usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion}
            last = envelope.wrap("", None, chunk.finish_reason)
            if chunk.stats.stopped_by:
                last["choices"][0]["stop_reason"] = chunk.stats.stopped_by
            yield last | {"usage": usage | {"total_tokens": sum(usage.values())}, "timings": chunk.stats.timings()}
        elif chunk.text:
            yield envelope.wrap(chunk.text, logprobs.take(), None, drafted)
            drafted = []


def whole_completion(parts: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a streamed completion as one."""
    texts: list[str] = []
    logprobs: dict[str, Any] | None = None
    drafted: list[bool] = []
    for part in parts:
        choice = part["choices"][0]
        texts.append(choice["text"])
        drafted += choice.get("drafted", ())
        if choice["logprobs"] is not None:
            if logprobs is None:
                logprobs = {key: [] if isinstance(value, list) else value for key, value in choice["logprobs"].items()}
            for key, value in choice["logprobs"].items():
                if isinstance(value, list):
                    logprobs[key] += value
    choice |= {"text": "".join(texts), "logprobs": logprobs} | ({"drafted": drafted} if drafted else {})
    return part


class _Logprobs:
    """Holds the log-probabilities of tokens back until all their text is out, so that none leaks past a stop.

    Counts in characters as the text does: tokens may end in the middle of one, or be none at all.
    """

    def __init__(self, before: str, piece: Piece, shape: Shape) -> None:
        self._piece = piece
        self._shape = shape
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = len(before)  # of the next token in the text
        self._n_out = len(before)  # characters
        self._waiting: deque[tuple[int, Scored]] = deque()  # behind the characters that a token has a part in

    def add(self, chunk: Chunk) -> None:
        for token in chunk.tokens if chunk.logprobs else ():
            assert chunk.logprobs is not None
            piece = self._piece(token, False)
            top = [(self._piece(other, True), logprob) for other, logprob in chunk.logprobs.top if other >= 0]
            scored = Scored(self._offset, self._piece(token, True), chunk.logprobs.logprob, top)
            self._offset += len(self._decoder.decode(piece))
            half, _ = self._decoder.getstate()
            self._waiting.append((self._offset + bool(half), scored))
        self._n_out += len(chunk.text)

    def take(self) -> dict[str, Any] | None:
        """Figures of the tokens whose text has come out; None if there are none."""
        taken: list[Scored] = []
        while self._waiting and self._waiting[0][0] <= self._n_out:
            taken.append(self._waiting.popleft()[1])
        return self._shape(taken) if taken else None
