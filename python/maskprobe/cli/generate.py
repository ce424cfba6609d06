"""``maskprobe generate``: one answer, streamed or as JSON."""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from ..drafting import costs
from ..errors import ModelError
from ..generation.request import Options
from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from ..results import Stats
from .app import app
from .drafted import ShowDraftsOption, show_chunks
from .groups import grouped
from .loading import Adapted
from .options import ModelOption, SpeculationOption, note
from .sampling import Answering, SystemOption, ThinkOption, template_variables
from .terminal import pipes, write


@app.command()
@grouped
def generate(
    ctx: typer.Context,
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; - or a pipe in its place: standard input.", show_default=False)
    ] = None,
    model: ModelOption = None,
    system: SystemOption = None,
    think: ThinkOption = None,
    max_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 256,
    answering: Answering,
    speculation: SpeculationOption = "",
    compare: Annotated[
        bool, typer.Option("--compare", help="Decode as plain llama.cpp does too and show the ratio.")
    ] = False,
    show_drafts: ShowDraftsOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Use the prompt as it is, without chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, at the end.")] = False,
    loading: Adapted,
) -> None:
    """Stream an answer and end with one line of figures."""
    with pipes():
        text = _prompt_text(ctx, prompt)
    settings = parse_speculation(speculation)
    if raw and (system is not None or think is not None):
        option = "--system" if system is not None else "--think"
        raise ValueError(f"{option} needs the chat template; leave out --raw, or put it into the prompt")
    with pipes(), MaskProbeLlama(resolve_model(model), speculation=settings, **loading.arguments()) as llm:
        ids = llm.tokenize(text) if raw else _chat_prompt(llm, text, system, think)
        options = answering.options(max_tokens)
        if answering.seed is None:
            options["seed"] = secrets.randbits(31)  # one for both runs of --compare
        pieces, show = [], show_chunks(shaded=show_drafts)
        with closing(llm.stream(ids, **options)) as stream:
            for chunk in stream:
                pieces.append(chunk.text)
                if not as_json:
                    show(chunk)
        assert chunk.stats is not None
        reference = None
        if compare and not answering.plain:
            again: Options = {**options, "speculate": False, "cache_prompt": False}
            with llm.engine.session.stock_kernels():
                reference = llm.generate(ids, **again).stats
        if as_json:
            result: dict[str, Any] = {
                "model": llm.model_path.name,
                "text": "".join(pieces),
                "finish_reason": chunk.finish_reason,
                "stats": chunk.stats.as_dict(),
            }
            write(json.dumps(result | ({"plain": reference.as_dict()} if reference else {})) + "\n")
            return
        write("\n")
        note(str(chunk.stats) + (_beside(llm, chunk.stats, reference) if reference else ""))


def _beside(llm: MaskProbeLlama, stats: Stats, reference: Stats) -> str:
    """How fast an answer was beside plain decoding, for the end of its line, and below it why if that is no gain."""
    ratio = stats.predicted_per_second / reference.predicted_per_second
    said = f", {ratio:.2f} x plain llama.cpp ({reference.predicted_per_second:.1f} tokens/s)"
    return said if ratio >= costs.WORTH_IT else f"{said}\n{_why_no_gain(llm, stats)}"


def _why_no_gain(llm: MaskProbeLlama, stats: Stats) -> str:
    """What the drafts of an answer brought, and what they must bring on this machine, in a sentence."""
    if llm.drafting.shape == "none":
        return f"no gain: there are no drafts, as {llm.drafting.why_none}"
    outlook = costs.outlook(costs.interpolate(llm.engine.knowledge.measured_costs(), costs.MEASURED_ROWS))
    return f"no gain: this text brought {stats.acceptance_length:.2f} tokens a pass, and here {outlook}"


def _prompt_text(ctx: typer.Context, prompt: str | None) -> str:
    """The argument, or standard input without its last newline."""
    if prompt is not None and prompt != "-":
        return prompt
    text = "" if prompt is None and sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    if prompt is None and not text:
        ctx.fail("Missing argument 'PROMPT': what to ask, or - to read it from standard input.")
    return text


def _chat_prompt(llm: MaskProbeLlama, text: str, system: str | None, think: bool | None) -> list[int]:
    if not llm.has_chat_template():
        raise ModelError(f"{llm.model_path.name} has no chat template; --raw continues the prompt as it is")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    return llm.apply_chat_template(messages, chat_template_kwargs=template_variables(llm, think))
