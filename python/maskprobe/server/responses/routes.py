"""The routes of the Responses API."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from ..answering import Answer, Asked, Service
from ..chats import chat_choices
from ..errors import ApiError
from ..translation import names_of, skipped_header
from ..worker import Part
from .answer import ResponseForm, new_response
from .body import FIELDS, ResponsesRequest
from .store import ResponseStore, Stored


def responses_routes(service: Service) -> APIRouter:
    """/v1/responses, and what is kept of them."""
    router = APIRouter()
    store = ResponseStore()

    def stored(name: str, param: str | None = None) -> Stored:
        found = store.get(name)
        if found is None:
            message = (
                f"there is no response {name!a:.80} here; the latest ones are kept, in memory, unless store is false"
            )
            raise ApiError(404, message, param=param, code="response_not_found")
        return found

    @router.post("/v1/responses")
    async def create(request: ResponsesRequest) -> Response:
        service.check_model(request.model)
        before: list[Part] = []
        if request.previous_response_id is not None:
            before = stored(request.previous_response_id, "previous_response_id").items
        chat, skipped = request.chat(before)

        def done(response: Part) -> None:
            if request.store:
                store.put(response, [*before, *request.items(), *response["output"]])

        form = ResponseForm(new_response(request, service.name), done)
        choices, headers = chat_choices(service, chat), skipped_header(skipped)
        return Answer(service, Asked(choices=choices, form=form, fields=names_of(FIELDS), headers=headers))

    @router.api_route("/v1/responses/{name}", methods=["GET", "HEAD"])
    async def retrieve(name: str) -> Response:
        return JSONResponse(stored(name).response)

    @router.delete("/v1/responses/{name}")
    async def delete(name: str) -> Response:
        stored(name)
        store.delete(name)
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    return router
