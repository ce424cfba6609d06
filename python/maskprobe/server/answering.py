"""The one place that runs a request on the model and sends what comes.

Knows HTTP, waiting and clients that leave; leaves the shape of answers to the APIs' forms and the model's thread to
worker.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..llama import MaskProbeLlama
from . import errors
from .choices import Choices
from .errors import ApiError
from .security import client_of
from .worker import Dropped, Job, Part, Worker

_COMMENT = b": waiting\n\n"


class Form(Protocol):
    """How an API says one answer. A stream is either ended or failed."""

    def whole(self, answers: Sequence[Part]) -> Part:
        """The JSON of a whole answer; answers: what the model gave, in order."""

    def events(self, part: Part) -> bytes:
        """The events that a part of a streamed answer becomes."""

    def end(self) -> bytes:
        """The events at the end of the stream."""

    def failed(self, error: ApiError) -> bytes:
        """The events at the end of a stream that has failed."""


@dataclass(frozen=True)
class Patience:
    """How long a stream is silent, in seconds.

    Args:
        status: before the status is sent, although no event is there yet; errors before are HTTP errors.
        comment: between two comments that say that the connection lives.
    """

    status: float = 1.0
    comment: float = 15.0


PATIENCE = Patience()


@dataclass(frozen=True)
class Service:
    """What the routes share: a model, the names by which it is called, and the worker that runs it."""

    llm: MaskProbeLlama
    names: Sequence[str]
    worker: Worker
    patience: Patience

    @property
    def name(self) -> str:
        """The name that answers carry."""
        return self.names[0]

    def check_model(self, model: str) -> None:
        """Raises an ApiError if a request's model is not the one that is served."""
        if model and model not in self.names:
            message = f"there is no model {model!r} here; GET /v1/models names the one that is"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def read(self, call: Callable[[], Part], fields: Mapping[str, str]) -> Part:
        """What a call returns that only reads the model; fields: for :func:`errors.of_exception`."""
        try:
            return await self.worker.read(call)
        except Exception as error:
            raise errors.of_exception(error, fields) from error


@dataclass(kw_only=True)
class Asked:
    """A request that is ready to run.

    Args:
        choices: what the model is asked for.
        form: how the answer is said.
        fields: the request's, by the names of the model's arguments.
        headers: that the response carries.
    """

    choices: Choices
    form: Form
    fields: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)


class Answer(Response):
    """Runs a request and sends what comes. A client that leaves takes its job with it.

    The status is sent with the first part, so that what is wrong with a request is an HTTP error in a stream too; or,
    if that part is long in coming, when patience ends.
    """

    def __init__(self, service: Service, asked: Asked) -> None:
        super().__init__()
        self._worker = service.worker
        self._patience = service.patience
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = Job(self._asked.choices.begin, client_of(scope))
        events = _Events(send, self._asked.headers)
        watch: asyncio.Task[None] | None = None
        try:
            self._worker.submit(job)
            watch = asyncio.create_task(self._drop_when_gone(receive, job))
            if self._asked.choices.stream:
                await self._send_stream(job, events)
            else:
                await self._whole(await _all(job)).__call__(scope, receive, send)
        except Dropped:
            pass  # nobody is there
        except Exception as error:
            told = errors.of_exception(error, self._asked.fields)
            if events.begun:  # the status is out: the error can only be an event
                await events.send(self._asked.form.failed(told), more=False)
            else:
                await told.response(scope["path"])(scope, receive, send)
        finally:
            if watch is not None:
                watch.cancel()
            self._worker.drop(job)

    def _whole(self, answers: Sequence[Part]) -> Response:
        return JSONResponse(self._asked.form.whole(answers), headers=dict(self._asked.headers))

    async def _send_stream(self, job: Job, events: _Events) -> None:
        while (part := await self._next(job, events)) is not None:
            await events.send(self._asked.form.events(part))
        await events.send(self._asked.form.end(), more=False)

    async def _next(self, job: Job, events: _Events) -> Part | None:
        while True:
            try:
                return await job.next(self._patience.comment if events.begun else self._patience.status)
            except asyncio.TimeoutError:
                await events.send(_COMMENT)

    async def _drop_when_gone(self, receive: Receive, job: Job) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._worker.drop(job)


class _Events:
    """A stream of events, whose status goes out with the first of them."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self.begun = False
        self._send = send
        self._headers = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no", **headers}

    async def send(self, body: bytes, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _all(job: Job) -> list[Part]:
    parts = []
    while (part := await job.next()) is not None:
        parts.append(part)
    return parts
