"""``maskprobe bench``: measures settings against plain decoding and stock modes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from .app import app
from .options import SPECULATION_HELP, ContextOption, GpuOption, ModelOption, ThreadsOption, notes, tables


@app.command()
def bench(
    prompts: Annotated[Path, typer.Option(help="Prompts as JSON lines: question_id, category, turns (SpecBench).")],
    model: ModelOption = None,
    speculation: Annotated[list[str] | None, typer.Option(help=SPECULATION_HELP + " Repeatable.")] = None,
    plain: Annotated[bool, typer.Option(help="Decode plainly too, for ratios and equality.")] = True,
    limit: Annotated[int | None, typer.Option(help="Use so many prompts, evenly from all categories.")] = None,
    max_prompt_tokens: Annotated[int, typer.Option(help="Leave out longer prompts.")] = 800,
    max_tokens: Annotated[int, typer.Option(help="Tokens per answer.")] = 128,
    n_ctx: ContextOption = 4096,
    n_threads: ThreadsOption = None,
    n_gpu_layers: GpuOption = 0,
    stock: Annotated[
        list[str] | None, typer.Option(help="A speculative mode of llama-server, or all. Repeatable.")
    ] = None,
    llama_server: Annotated[Path | None, typer.Option(help="The llama-server to run; default: on PATH.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results to this file.")] = None,
) -> None:
    """Measure tokens per pass and speed against plain decoding, interleaved prompt by prompt."""
    from .. import bench as suite

    settings = {text or "default": parse_speculation(text) for text in speculation or [""]}
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ValueError(f"--json {json_file}: its folder does not exist")
    cases = suite.read_prompts(prompts)
    path = resolve_model(model)
    report = suite.Report()
    with ExitStack() as stack:
        llm = stack.enter_context(MaskProbeLlama(path, n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers))
        servers = suite.start_stock(stack, report, stock or [], llama_server, path, llm)
        chosen = suite.choose(llm, cases, limit, max_prompt_tokens)
        try:
            suite.run(
                llm,
                chosen,
                settings,
                stock=servers,
                plain=plain,
                max_tokens=max_tokens,
                report=report,
                console=notes,
            )
        finally:  # an interrupted run keeps what is finished
            if json_file is not None and report.runs:
                report.write(json_file)
    report.show(tables())
