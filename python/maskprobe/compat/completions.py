"""Completions: the arguments of create_completion become a generation, and its chunks become dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..checking import checked_flag, checked_integer
from ..generation.request import Options
from ..loaded import LoadedModel
from .envelopes import Envelope, Shape, completion_logprobs, stream_completion, whole_completion

# Arguments that go on to stream as they are, and those that completions have beside.
_GENERATION = frozenset(Options.__annotations__) | {"model", "tfs_z", "return_drafted"}


def complete_prompt(llm: LoadedModel, arguments: Mapping[str, Any]) -> Any:
    """A completion, or an iterator of its parts; arguments: those of create_completion by name."""
    prompt, echo, logprobs = arguments["prompt"], arguments["echo"], arguments["logprobs"]
    if echo and logprobs is not None:
        raise ValueError("echo with logprobs is not supported: prompt tokens have none; turn one of them off")
    checked_flag("stream", arguments["stream"])
    checked_flag("echo", echo)
    ids = llm.prompts.of_completion(prompt, arguments["suffix"])
    before = "" if not echo else prompt if isinstance(prompt, str) else llm.detokenize(ids)
    options = generation_arguments(arguments)
    parts = completion_parts(llm, ids, completion_logprobs, options, before=before)
    return parts if arguments["stream"] else whole_completion(parts)


def generation_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that :func:`completion_parts` takes."""
    return {name: value for name, value in arguments.items() if name in _GENERATION}


def completion_parts(
    llm: LoadedModel, ids: list[int], shape: Shape, options: Mapping[str, Any], *, before: str = ""
) -> Iterator[dict[str, Any]]:
    """The parts of a completion, checked and begun.

    Args:
        ids: the prompt.
        shape: how log-probabilities are said.
        options: :func:`generation_arguments`.
        before: text in front of the completion.
    """
    generation = dict(options)
    model, tfs_z = generation.pop("model"), generation.pop("tfs_z")
    return_drafted = checked_flag("return_drafted", generation.pop("return_drafted"))
    if tfs_z != 1.0:
        raise ValueError(f"tfs_z={tfs_z} is not supported: llama.cpp has no tail-free sampling any more")
    if (limit := generation["max_tokens"]) is not None:
        limit = checked_integer("max_tokens", limit, -(2**31), 2**31 - 1)
        generation["max_tokens"] = limit if limit > 0 else None
    special = frozenset(generation.get("special", ()))
    chunks = llm.stream(ids, **generation)
    envelope = Envelope(model if model is not None else str(llm.model_path))

    def piece(token: int, named: bool) -> bytes:
        return llm.piece(token, named or token in special)

    return stream_completion(chunks, envelope, len(ids), before, piece, shape, return_drafted=return_drafted)
