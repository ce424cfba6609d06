"""The application: the routes of all APIs over one model, and what guards them.

Knows which parts there are; leaves each API to its routes, running to answering.py and guarding to security.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ..llama import MaskProbeLlama
from . import errors
from .answering import PATIENCE, Patience, Service
from .errors import ApiError
from .llama_server.routes import llama_server_routes
from .messages.routes import messages_routes
from .metrics import Metrics
from .openai_routes import openai_routes
from .page import PAGE_PATHS, page_routes
from .responses.routes import responses_routes
from .security import AllowedHosts, ApiKeys, JsonBodies, SecureHeaders
from .worker import Worker

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
GRACE = 5.0  # seconds that the model has to stop
READ = ["GET", "HEAD"]
OPEN_PATHS = (*PAGE_PATHS, "/health")  # without the API key


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        names: by which requests may call the model; answers carry the first.
        api_key: that requests must carry, or several of which they must carry one; None = none.
        allowed_hosts: that requests may be addressed to, "*" = all.
        cors_origins: sites whose pages may use the server, "*" = all.
        queue: most requests that wait. Clients take turns: those with different keys, or at different addresses
            where there are not several keys.
        max_body: bytes.
        patience: how long streams are silent while they wait.
    """

    names: tuple[str, ...]
    api_key: str | tuple[str, ...] | None = None
    allowed_hosts: tuple[str, ...] = LOCAL_HOSTS
    cors_origins: tuple[str, ...] = ()
    queue: int = 32
    max_body: int = 4 * 2**20
    patience: Patience = PATIENCE


def create_app(llm: MaskProbeLlama, settings: Settings) -> FastAPI:
    """The application that serves a model, which nobody else may use meanwhile. ``app.state.worker`` runs it."""
    seats = llm.engine.seats
    n_before = seats.n_passes
    metrics = Metrics(lambda: seats.n_passes - n_before)
    worker = Worker(settings.queue, metrics, llm.n_lanes)

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

    service = Service(llm, settings.names, worker, settings.patience)
    for routes in (openai_routes, responses_routes, messages_routes, llama_server_routes):
        app.include_router(routes(service))
    _add_pages(app, service, card, metrics)
    app.include_router(page_routes())
    return app


def _add_pages(app: FastAPI, service: Service, card: dict[str, Any], metrics: Metrics) -> None:
    """The routes that ask nothing of the model; card: what there is to say of it."""

    @app.api_route("/v1/models", methods=READ)
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    @app.api_route("/v1/models/{model:path}", methods=READ)
    async def model(model: str) -> Response:
        if not model:
            return await models()
        service.check_model(model)
        return JSONResponse(card)

    @app.api_route("/health", methods=READ)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.api_route("/metrics", methods=READ)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _guard(app: FastAPI, settings: Settings) -> None:
    """Adds what stands in front of the routes, the innermost first."""
    app.add_middleware(JsonBodies, limit=settings.max_body)
    if settings.api_key is not None:
        keys = (settings.api_key,) if isinstance(settings.api_key, str) else settings.api_key
        app.add_middleware(ApiKeys, keys=keys, open_paths=OPEN_PATHS)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],  # OpenAI's clients send a dozen of their own
        )
    app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)
    app.add_middleware(SecureHeaders)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: HttpRequest, error: ApiError) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: HttpRequest, error: RequestValidationError) -> Response:
        return errors.of_validation(error.errors()).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def http_error(request: HttpRequest, error: HTTPException) -> Response:
        return ApiError(error.status_code, error.detail, headers=error.headers).response(request.url.path)

    @app.exception_handler(Exception)
    async def failure(request: HttpRequest, error: Exception) -> Response:
        return ApiError(500, "the server failed; its log says more").response(request.url.path)
