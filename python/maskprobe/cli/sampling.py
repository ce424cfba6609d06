"""Options of commands that sample: llama-cpp-python's names; the ranges are checked where sampling is."""

from __future__ import annotations

from typing import Annotated

import typer

from ..llama import Options

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
