"""What commands that answer share: options of sampling under llama-cpp-python's names, and the model that answers.

The ranges are checked where sampling and loading are.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama, Options
from ..speculation import Speculation

TemperatureOption = Annotated[float, typer.Option(help="0 = greedy.")]
TopKOption = Annotated[int, typer.Option(help="Choose among so many tokens; 0 = all.")]
TopPOption = Annotated[float, typer.Option(help="Choose among the tokens that make up this probability; 1 = all.")]
MinPOption = Annotated[float, typer.Option(help="Least probability relative to the best token's; 0 = any.")]
RepeatPenaltyOption = Annotated[float, typer.Option(help="Above 1: tokens that have come are less likely to again.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the sampler.")]
StopOption = Annotated[list[str] | None, typer.Option(help="Text that ends the answer. Repeatable.")]
SystemOption = Annotated[str | None, typer.Option(help="System message.")]
PlainOption = Annotated[bool, typer.Option("--plain", help="Plain one-row decoding.")]


def answer_options(ctx: typer.Context) -> Options:
    """What a command with all of these options, and max_tokens, asks of the model."""
    given = ctx.params
    return {
        "max_tokens": given["max_tokens"],
        "temperature": given["temperature"],
        "top_k": given["top_k"],
        "top_p": given["top_p"],
        "min_p": given["min_p"],
        "repeat_penalty": given["repeat_penalty"],
        "seed": given["seed"],
        "stop": given["stop"] or [],
        "speculate": False if given["plain"] else None,
    }


def loaded(ctx: typer.Context, speculation: Speculation) -> MaskProbeLlama:
    """The model of a command with the options of model and machine."""
    given = ctx.params
    return MaskProbeLlama(
        resolve_model(given["model"]),
        n_ctx=given["n_ctx"],
        n_threads=given["n_threads"],
        n_gpu_layers=given["n_gpu_layers"],
        rpc_servers=given["rpc"],
        speculation=speculation,
    )
