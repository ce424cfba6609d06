"""The routes of llama-server's own endpoints."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from ...chat.infill import File, infill_prompt
from ..answering import Answer, Asked, Service
from ..chats import completion_choices
from ..errors import ApiError
from ..prompt import chat_text
from ..requests import ChatRequest, Request
from ..worker import Part, Slot
from .body import FIELDS, DetokenizeRequest, InfillRequest, TokenizeRequest
from .infill import CompletionForm

_READ = ["GET", "HEAD"]
# What holds where a request says nothing else.
_DEFAULTS = {
    "n_predict": -1,
    "seed": 2**32 - 1,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
}


def llama_server_routes(service: Service) -> APIRouter:
    """/tokenize, /detokenize, /apply-template, /infill, /props and /slots."""
    router = APIRouter()
    llm = service.llm

    @router.post("/tokenize")
    async def tokenize(request: TokenizeRequest) -> Response:
        return JSONResponse(await service.read(partial(_tokenized, service, request), {"content": "content"}))

    @router.post("/detokenize")
    async def detokenize(request: DetokenizeRequest) -> Response:
        return JSONResponse(await service.read(partial(_detokenized, service, request), {"token": "tokens"}))

    @router.post("/apply-template")
    async def apply_template(request: ChatRequest) -> Response:
        service.check_model(request.model)
        fields = {name: name for name in ChatRequest.model_fields}
        return JSONResponse(await service.read(lambda: {"prompt": chat_text(llm, request)}, fields))

    @router.post("/infill")
    async def infill(request: InfillRequest) -> Response:
        service.check_model(request.model)
        if llm.prompts.model.vocab.infill() is None:
            raise ApiError(501, f"{service.name} has no fill-in-the-middle tokens", code="not_supported")
        found = await service.read(partial(_infill_prompt, service, request), {})
        choices = completion_choices(service, request.completion(found["ids"]))
        form = CompletionForm(service.name, request.response_fields)
        names = {name: name for name in Request.model_fields} | FIELDS | {"prompt": "input_prefix"}
        return Answer(service, Asked(choices=choices, form=form, fields=names))

    @router.api_route("/props", methods=_READ)
    async def props() -> Response:
        return JSONResponse(_props(service))

    @router.api_route("/slots", methods=_READ)
    async def slots(fail_on_no_slot: str = "") -> Response:
        if fail_on_no_slot and service.worker.busy:
            raise ApiError(503, "the model is busy", code="no_slot_available")
        return JSONResponse([_slot(service, i, slot) for i, slot in enumerate(service.worker.slots)])

    return router


def _tokenized(service: Service, request: TokenizeRequest) -> Part:
    llm = service.llm
    ids: list[int] = []
    for i, piece in enumerate([request.content] if isinstance(request.content, str) else request.content):
        if isinstance(piece, str):
            ids += llm.tokenize(piece, add_bos=request.add_special and i == 0, special=request.parse_special)
        else:
            ids += llm.prompts.checked_ids([piece])
    if not request.with_pieces:
        return {"tokens": ids}
    return {"tokens": [{"id": token, "piece": _piece(llm.piece(token, special=True))} for token in ids]}


def _piece(piece: bytes) -> str | list[int]:
    """The text of a token; the bytes of one that ends within a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _detokenized(service: Service, request: DetokenizeRequest) -> Part:
    ids = service.llm.prompts.checked_ids(request.tokens)
    pieces = b"".join(service.llm.piece(token, special=True) for token in ids)
    return {"content": pieces.decode("utf-8", "replace")}


def _infill_prompt(service: Service, request: InfillRequest) -> Part:
    n_ctx = service.llm.n_ctx()
    answer = request.n_predict if request.n_predict > 0 else n_ctx // 4
    ids = infill_prompt(
        service.llm.prompts.model.vocab,
        request.input_prefix,
        request.input_suffix,
        begun=request.prompt,
        files=[File(file.filename, file.text) for file in request.input_extra],
        room=max(n_ctx - answer, n_ctx // 2),
    )
    return {"ids": ids}


def _props(service: Service) -> Part:
    llm = service.llm
    bos, eos = (llm.piece(token, special=True) if token >= 0 else b"" for token in (llm.token_bos(), llm.token_eos()))
    return {
        "default_generation_settings": {"n_ctx": llm.n_ctx(), "params": _DEFAULTS},
        "total_slots": len(service.worker.slots),
        "model_alias": service.name,
        "model_path": llm.model_path.name,
        "modalities": {"vision": False, "audio": False},
        "chat_template": llm.metadata.get("tokenizer.chat_template", ""),
        "bos_token": bos.decode("utf-8", "replace"),
        "eos_token": eos.decode("utf-8", "replace"),
        "build_info": f"maskprobe {version('maskprobe')}",
        "is_sleeping": False,
    }


def _slot(service: Service, i: int, slot: Slot) -> Part:
    """A slot with the figures of the answer that it is at, or else of its latest."""
    is_busy, figures = slot.job is not None, slot.timings
    if is_busy:
        tally = service.llm.engine.seats.tally(slot.thread)
        figures = {} if tally is None else tally.so_far()
    cached, decoded, answered = (int(figures.get(key, 0)) for key in ("cache_n", "prompt_n", "predicted_n"))
    return {
        "id": i,
        "id_task": slot.task,
        "n_ctx": service.llm.n_ctx(),
        "speculative": service.llm.drafting.shape != "none",
        "is_processing": is_busy,
        "state": "idle" if not is_busy else "answer" if answered else "prompt",
        "n_prompt_tokens": cached + decoded + answered,  # llama-server counts what was answered too
        "n_prompt_tokens_processed": decoded,
        "n_prompt_tokens_cache": cached,
        "next_token": [{"has_next_token": is_busy, "n_decoded": answered}],
        "passes": figures.get("passes", 0),
        "acceptance_length": figures.get("acceptance_length", 1.0),
        "draft_n": figures.get("draft_n", 0),
        "draft_n_accepted": figures.get("draft_n_accepted", 0),
    }
