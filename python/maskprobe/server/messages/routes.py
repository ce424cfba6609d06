"""The routes of the Messages API."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from ..answering import Answer, Asked, Service
from ..chats import chat_choices
from ..prompt import chat_tokens
from ..translation import names_of, skipped_header
from .answer import MessageForm
from .body import FIELDS, CountRequest, MessagesRequest


def messages_routes(service: Service) -> APIRouter:
    """/v1/messages and /v1/messages/count_tokens."""
    router = APIRouter()
    names = names_of(FIELDS)

    @router.post("/v1/messages")
    async def create(request: MessagesRequest) -> Response:
        service.check_model(request.model)
        chat, skipped = request.chat()
        choices = chat_choices(service, chat)
        headers = skipped_header(skipped)
        form = MessageForm(service.name, request.stop_sequences or ())
        return Answer(service, Asked(choices=choices, form=form, fields=names, headers=headers))

    @router.post("/v1/messages/count_tokens")
    async def count(request: CountRequest) -> Response:
        service.check_model(request.model)
        chat, skipped = request.chat()
        found = await service.read(lambda: {"input_tokens": len(chat_tokens(service.llm, chat))}, names)
        return JSONResponse(found, headers=skipped_header(skipped))

    return router
