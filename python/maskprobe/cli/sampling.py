"""Options of answers that commands share: sampling under llama-cpp-python's names, thinking, the system message.

The ranges are checked where sampling is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..generation.request import Options
from ..llama import MaskProbeLlama

ThinkOption = Annotated[
    bool | None,
    typer.Option("--think/--no-think", help="Think before answering, or not; default: as the chat template has it."),
]
SystemOption = Annotated[str | None, typer.Option(help="System message.")]


@dataclass(kw_only=True)
class Answering:
    """How an answer is made; with a limit, what :meth:`MaskProbeLlama.stream` takes."""

    temperature: Annotated[float, typer.Option(help="0 = greedy.")] = 0.8
    top_k: Annotated[int, typer.Option(help="Choose among so many tokens; 0 = all.")] = 40
    top_p: Annotated[float, typer.Option(help="Choose among the tokens that make up this probability; 1 = all.")] = 0.95
    min_p: Annotated[float, typer.Option(help="Least probability relative to the best token's; 0 = any.")] = 0.05
    repeat_penalty: Annotated[float, typer.Option(help="Above 1: tokens that have come are less likely to again.")] = (
        1.0
    )
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler.")] = None
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer. Repeatable.")] = None
    plain: Annotated[bool, typer.Option("--plain", help="Plain one-row decoding.")] = False

    def options(self, max_tokens: int) -> Options:
        """What is asked of the model."""
        return {
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty,
            "seed": self.seed,
            "stop": self.stop or [],
            "speculate": False if self.plain else None,
        }


def template_variables(llm: MaskProbeLlama, think: bool | None) -> dict[str, Any]:
    """Variables of the chat template that stand for --think or --no-think.

    Raises:
        ValueError: the template has no such switch.
    """
    if think is None:
        return {}
    question = [{"role": "user", "content": "?"}]
    on, off = (
        llm.apply_chat_template(question, chat_template_kwargs={"enable_thinking": value}) for value in (True, False)
    )
    if on == off:
        raise ValueError(
            f"the chat template of {llm.model_path.name} cannot switch thinking; leave --think and --no-think out"
        )
    return {"enable_thinking": think}
