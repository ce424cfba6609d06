"""Requests from a file, without HTTP: OpenAI's batch lines in, their answers out, in the order in which they end.

Knows lines and which of them are done; leaves requests and answers to the routes' own parts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..llama import MaskProbeLlama
from ..many import as_they_end, until
from . import errors
from .answering import PATIENCE, Service
from .chats import chat_choices, completion_choices
from .choices import Choices
from .errors import ApiError
from .metrics import Metrics
from .requests import ChatRequest, CompletionRequest
from .wire import Chunks
from .worker import Part, Worker

_KINDS: dict[str, tuple[type[Any], Callable[[Service, Any], Choices]]] = {
    "/v1/chat/completions": (ChatRequest, chat_choices),
    "/v1/completions": (CompletionRequest, completion_choices),
}


class Batch:
    """A file of requests and one of answers. What the second has already is not asked again.

    Args:
        source: a JSON object a line: custom_id, method (POST), url and body.
        target: an object a line: custom_id and response, with status_code and body. Its last line may be cut.

    Raises:
        ValueError: a line of the source is no request, or two have one custom_id.
        OSError: a file cannot be read or written.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._target = target
        lines = _objects(source)
        ids = [_custom_id(line, source, n) for n, line in lines]
        if len(set(ids)) < len(ids):
            twice = next(one for i, one in enumerate(ids) if one in ids[:i])
            raise ValueError(f"{source}: two lines have the custom_id {twice!r}; answers could not be told apart")
        done = _done(target)
        self.n_done = sum(one in done for one in ids)
        self._left = [line for (_, line), one in zip(lines, ids, strict=True) if one not in done]

    def __len__(self) -> int:
        return len(self._left)

    def run(self, llm: MaskProbeLlama, names: Iterable[str]) -> Generator[bool, None, None]:
        """Answers what is left, n_parallel at once, and says of each whether it could be answered.

        Args:
            llm: which nobody else uses meanwhile.
            names: by which requests may call the model.
        """
        gone = threading.Event()
        service = Service(llm, tuple(names), Worker(0, Metrics()), PATIENCE)  # whose worker is not started

        def answer(line: Part) -> Part:
            return _answer(service, line, gone)

        with (
            self._target.open("a", encoding="utf-8") as out,
            closing(as_they_end(answer, self._left, llm.n_parallel, gone)) as ended,
        ):
            for _, said, error in ended:
                if error is not None or said is None:
                    raise error or RuntimeError("a request has no answer")
                out.write(json.dumps(said, ensure_ascii=False) + "\n")
                out.flush()
                yield said["response"]["status_code"] == 200


def _answer(service: Service, line: Part, gone: threading.Event) -> Part:
    status, body = 200, {}
    try:
        body = _body(service, line, gone)
    except ApiError as error:
        status, body = error.status_code, error.body()
    custom_id = line["custom_id"]
    response = {"status_code": status, "request_id": body.get("id", ""), "body": body}
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": None}


def _body(service: Service, line: Part, gone: threading.Event) -> Part:
    """The JSON of a line's answer. Raises an ApiError for what a client would be told."""
    if (kind := _KINDS.get(str(line.get("url")))) is None or line.get("method", "POST") != "POST":
        raise ApiError(
            404, f"url must be POST to {' or '.join(_KINDS)}, got {line.get('method')!r} {line.get('url')!r}"
        )
    schema, choices_of = kind
    fields = {name: name for name in schema.model_fields}
    try:
        request = schema.model_validate(line.get("body"))
        if request.stream:
            raise ApiError(400, "stream: answers of a batch come whole; leave it out", param="stream")
        service.check_model(request.model)
        choices = choices_of(service, request)
        answers = list(choices.begin(until(gone, lambda: None)))
        return Chunks(request.wants_usage).whole(answers)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise errors.of_validation(found) from error
    except Exception as error:
        raise errors.of_exception(error, fields) from error


def _objects(path: Path) -> list[tuple[int, Any]]:
    """The JSON of a file's lines, with their numbers."""
    found = []
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # other ends of lines may stand in texts
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    for n, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append((n, json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {n} is no JSON: {error}") from error
    return found


def _custom_id(line: Any, path: Path, n: int) -> str:
    custom_id = line.get("custom_id") if isinstance(line, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        raise ValueError(f"{path}, line {n} must be an object with a custom_id, a text")
    return custom_id


def _done(target: Path) -> set[str]:
    """The ids that have answers. A last line that was cut when a run was ended is taken away."""
    if not target.exists():
        return set()
    text = target.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        target.write_bytes(whole)
    return {_custom_id(line, target, n) for n, line in _objects(target)}
