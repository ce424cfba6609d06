"""The application: routes from requests to the model's methods, and how answers are sent.

Knows HTTP; leaves fields to requests.py, the model's thread to worker.py and what guards the routes to security.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from ..llama import MaskProbeLlama
from . import errors, wire
from .errors import ApiError
from .metrics import Metrics
from .page import PAGE_PATHS, page_routes
from .requests import ChatRequest, CompletionRequest, Request
from .security import AllowedHosts, ApiKey, JsonBodies, SecureHeaders
from .worker import Dropped, Job, Worker

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
GRACE = 5.0  # seconds that the model has to stop
READ = ["GET", "HEAD"]
OPEN_PATHS = (*PAGE_PATHS, "/health")  # without the API key


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        names: by which requests may call the model; answers carry the first.
        api_key: that requests must carry, None = none.
        allowed_hosts: that requests may be addressed to, "*" = all.
        cors_origins: sites whose pages may use the server, "*" = all.
        queue: most requests that wait.
        max_body: bytes.
    """

    names: tuple[str, ...]
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = LOCAL_HOSTS
    cors_origins: tuple[str, ...] = ()
    queue: int = 32
    max_body: int = 4 * 2**20


def create_app(llm: MaskProbeLlama, settings: Settings) -> FastAPI:
    """The application that serves a model, which nobody else may use meanwhile. ``app.state.worker`` runs it."""
    metrics = Metrics()
    worker = Worker(settings.queue, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            worker.stop()
            await asyncio.to_thread(worker.join, GRACE)

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.worker = worker
    _guard(app, settings)
    _add_error_handlers(app)
    name = settings.names[0]
    card = {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "maskprobe",
        "meta": {"n_ctx": llm.n_ctx(), "n_vocab": llm.n_vocab(), "description": llm.description()},
    }

    def answer(request: Request, method: Callable[..., Any]) -> Answer:
        _check_model(request.model, settings.names)
        return Answer(worker, request, partial(method, **request.arguments(), model=name))

    @app.post("/v1/chat/completions")
    async def chat(request: ChatRequest) -> Response:
        return answer(request, llm.create_chat_completion)

    @app.post("/v1/completions")
    async def completions(request: CompletionRequest) -> Response:
        return answer(request, llm.create_completion)

    _add_pages(app, settings, card, metrics)
    app.include_router(page_routes())
    return app


def _add_pages(app: FastAPI, settings: Settings, card: dict[str, Any], metrics: Metrics) -> None:
    """The routes that ask nothing of the model; card: what there is to say of it."""

    @app.api_route("/v1/models", methods=READ)
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    @app.api_route("/v1/models/{model:path}", methods=READ)
    async def model(model: str) -> Response:
        if not model:
            return await models()
        _check_model(model, settings.names)
        return JSONResponse(card)

    @app.api_route("/health", methods=READ)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.api_route("/metrics", methods=READ)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class Answer(Response):
    """Runs a request on the model and sends what comes. A client that leaves takes its job with it.

    The status is sent with the first part, so that what is wrong with a request is an HTTP error in a stream too.
    """

    def __init__(self, worker: Worker, request: Request, call: Callable[..., Any]) -> None:
        super().__init__()
        self._worker = worker
        self._request = request
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = Job(self._parts)
        self._worker.submit(job)
        watch = asyncio.create_task(self._drop_when_gone(receive, job))
        try:
            first = await job.next()
            assert first is not None, "an answer has at least one part"
            if self._request.stream:
                await self._send_stream(first, job, send)
            else:
                await job.next()  # the end
                await JSONResponse(wire.whole(first))(scope, receive, send)
        except Dropped:
            pass  # nobody is there
        except Exception as error:
            await self._error(error).response()(scope, receive, send)
        finally:
            watch.cancel()
            self._worker.drop(job)

    def _parts(self, before_pass: Callable[[], None]) -> Iterable[dict[str, Any]]:
        answer = self._call(before_pass=before_pass)
        return answer if self._request.stream else [answer]

    async def _send_stream(self, first: dict[str, Any], job: Job, send: Send) -> None:
        async def send_body(body: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        stream = wire.Stream(self._request.wants_usage)
        part: dict[str, Any] | None = first
        try:
            while part is not None:
                await send_body(b"".join(wire.event(chunk) for chunk in stream.chunks(part)))
                part = await job.next()
            await send_body(wire.DONE, more=False)
        except Dropped:
            pass
        except Exception as error:  # the status is out: the error can only be an event
            await send_body(wire.event(self._error(error).body()), more=False)

    def _error(self, error: Exception) -> ApiError:
        return errors.of_exception(error, type(self._request).model_fields)

    async def _drop_when_gone(self, receive: Receive, job: Job) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._worker.drop(job)


def _check_model(model: str, names: Iterable[str]) -> None:
    if model and model not in names:
        message = f"there is no model {model!r} here; GET /v1/models names the one that is"
        raise ApiError(404, message, param="model", code="model_not_found")


def _guard(app: FastAPI, settings: Settings) -> None:
    """Adds what stands in front of the routes, the innermost first."""
    app.add_middleware(JsonBodies, limit=settings.max_body)
    if settings.api_key is not None:
        app.add_middleware(ApiKey, key=settings.api_key, open_paths=OPEN_PATHS)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],  # OpenAI's clients send a dozen of their own
        )
    app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)
    app.add_middleware(SecureHeaders)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: HttpRequest, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: HttpRequest, error: RequestValidationError) -> Response:
        return errors.of_validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: HttpRequest, error: HTTPException) -> Response:
        return ApiError(error.status_code, error.detail, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def failure(request: HttpRequest, error: Exception) -> Response:
        return ApiError(500, "the server failed; its log says more").response()
