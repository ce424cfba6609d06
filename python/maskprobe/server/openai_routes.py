"""OpenAI's chats and completions."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from .answering import Answer, Asked, Service
from .chats import chat_choices, completion_choices
from .choices import Choices
from .requests import ChatRequest, CompletionRequest, Request
from .wire import Chunks


def openai_routes(service: Service) -> APIRouter:
    """/v1/chat/completions and /v1/completions."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(request: ChatRequest) -> Response:
        service.check_model(request.model)
        return _answer(service, request, chat_choices(service, request))

    @router.post("/v1/completions")
    async def completions(request: CompletionRequest) -> Response:
        service.check_model(request.model)
        return _answer(service, request, completion_choices(service, request))

    return router


def _answer(service: Service, request: Request, choices: Choices) -> Answer:
    fields = {name: name for name in type(request).model_fields}
    return Answer(service, Asked(choices=choices, form=Chunks(request.wants_usage), fields=fields))
