"""The command line. Knows options and terminals; the work is done by the package."""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import MaskProbeError, MaskProbeLlama, embedded_model
from .notation import parse_speculation

app = typer.Typer(
    help="Local LLMs in fewer forward passes, with the same output.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
notes = Console(stderr=True, highlight=False)

ModelOption = Annotated[
    Path | None, typer.Option("--model", "-m", help="A .gguf file; default: the embedded SmolLM2-135M-Instruct.")
]
ContextOption = Annotated[int, typer.Option(help="Context length in tokens.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Threads; default: one per physical core.")]
GpuOption = Annotated[int, typer.Option(help="Layers on the GPU, -1 = all.")]
SPECULATION_HELP = (
    'Settings such as "masks=2,tree=15x4,probe=prompt-mean,update=0.1", "tree=dynamic,block=60" or "paper-30".'
)


def _tables() -> Console:
    """A console for tables; in a pipe there is no width to fit."""
    return Console() if sys.stdout.isatty() else Console(width=120)


@app.callback()
def _main() -> None:
    pass


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    model: ModelOption = None,
    max_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 = greedy.")] = 0.8,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler.")] = None,
    speculation: Annotated[str, typer.Option(help=SPECULATION_HELP)] = "",
    plain: Annotated[bool, typer.Option("--plain", help="Plain one-row decoding.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Decode plainly too and show the ratio.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Use the prompt as it is, without chat template.")] = False,
    n_ctx: ContextOption = 4096,
    n_threads: ThreadsOption = None,
    n_gpu_layers: GpuOption = 0,
) -> None:
    """Stream an answer and end with one line of figures."""
    text = sys.stdin.read() if prompt == "-" else prompt
    settings = parse_speculation(speculation)
    with MaskProbeLlama(
        model or embedded_model(), n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers, speculation=settings
    ) as llm:
        ids = llm.tokenize(text) if raw else llm.apply_chat_template([{"role": "user", "content": text}])
        # One seed for both runs, also where the caller asked for none.
        seed = seed if seed is not None else secrets.randbits(31)
        chosen = False if plain else None
        for chunk in llm.stream(ids, max_tokens=max_tokens, temperature=temperature, seed=seed, speculate=chosen):
            print(chunk.text, end="", flush=True)
        print()
        assert chunk.stats is not None
        line = str(chunk.stats)
        if compare and not plain:
            reference = llm.generate(
                ids, max_tokens=max_tokens, temperature=temperature, seed=seed, speculate=False, cache_prompt=False
            )
            ratio = chunk.stats.predicted_per_second / reference.stats.predicted_per_second
            line += f", {ratio:.2f} x plain decoding ({reference.stats.predicted_per_second:.1f} tokens/s)"
        notes.print(line, style="dim", soft_wrap=True)


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
    from . import bench as suite

    settings = {text or "default": parse_speculation(text) for text in speculation or [""]}
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ValueError(f"--json {json_file}: its folder does not exist")
    cases = suite.read_prompts(prompts)
    path = model or embedded_model()
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
    report.show(_tables())


@app.command()
def tune(
    model: Annotated[Path | None, typer.Argument(help="A .gguf file; default: the embedded model.")] = None,
    adjacency: Annotated[bool, typer.Option(help="Make the adjacency table too (the longest step).")] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.")] = None,
    n_ctx: ContextOption = 4096,
    n_threads: ThreadsOption = None,
    n_gpu_layers: GpuOption = 0,
) -> None:
    """Do the once-per-model work: cost curve, probe, adjacency table; show what to expect."""
    from .tune import tune as run

    with MaskProbeLlama(model or embedded_model(), n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers) as llm:
        run(llm, _tables(), adjacency=adjacency, plot=plot)


def main() -> None:
    """Entry point: errors of the package become one line and exit code 1, Ctrl-C exit code 130."""
    try:
        app(standalone_mode=False)
    except (MaskProbeError, ValueError, TypeError) as error:
        notes.print(f"maskprobe: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(1)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # click's usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
