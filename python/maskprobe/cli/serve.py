"""``maskprobe serve``: an OpenAI-compatible server."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..core.lanes import Lanes, fitting_lanes
from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from ..speculation import Speculation
from .app import app
from .groups import grouped
from .loading import Adapted
from .options import ModelOption, SpeculationOption, notes


@dataclass(kw_only=True)
class Together:
    """How many requests run and how many wait, and what of memory is for them."""

    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, max=16, help="Requests that are answered at once; default: 4, or as many as memory has room for."
        ),
    ] = None
    cache_ram: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="MiB for conversations that have to leave the context, 0 = none; default: a tenth of what the model "
            "leaves of the memory, 8 GiB at most.",
        ),
    ] = None
    queue: Annotated[int, typer.Option(min=0, help="Most requests that wait for the model.")] = 32

    def lanes(self, model: Path, n_gpu_layers: int, speculation: Speculation) -> Lanes:
        """How many lanes a model gets, and why not more."""
        return Lanes(self.parallel) if self.parallel else fitting_lanes(model, n_gpu_layers, speculation.leaves())


@app.command()
@grouped
def serve(
    *,
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 = all, also from outside.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on, 0 = a free one.")] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MASKPROBE_API_KEY",
            help="Ask clients for this key. Repeatable: one for each, who then take turns; spaces part several in the "
            "variable.",
            show_envvar=True,
        ),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Name of the model for clients; default: its file's.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name by which clients may address the server, * = any. Repeatable.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may use the server, * = any. Repeatable.")
    ] = None,
    together: Together,
    max_body: Annotated[int, typer.Option(min=1, help="Largest request in bytes.")] = 4 * 2**20,
    chat_format: Annotated[
        str | None, typer.Option(help="A chat format of llama-cpp-python; default: the model's own template.")
    ] = None,
    speculation: SpeculationOption = "",
    loading: Adapted,
) -> None:
    """Serve a model to OpenAI clients, with a chat page at /."""
    try:
        from .. import server
    except ImportError as error:
        raise ValueError(f'the server needs {error.name}: pip install "maskprobe[server]"') from error

    if "" in (api_key or ()):
        raise ValueError("the API key is empty; give one, or leave --api-key and MASKPROBE_API_KEY out")
    settings = parse_speculation(speculation)
    arguments = loading.arguments()
    path = resolve_model(model)
    lanes = together.lanes(path, loading.n_gpu_layers, settings)
    arguments |= {"n_parallel": lanes.n, "cache_ram": together.cache_ram}
    names = [alias] if alias else []
    names += [path.stem, path.name] + ([model] if model else [])
    with (
        closing(server.bind(host, port)) as bound,  # before the model: a port in use is known at once
        MaskProbeLlama(path, chat_format=chat_format, speculation=settings, **arguments) as llm,
    ):
        if not api_key and not server.is_local(bound):
            notes.print("Whoever reaches this address can use the model; --api-key KEY asks for a key.", style="yellow")
        how = server.Settings(
            names=tuple(names),
            api_key=tuple(api_key) if api_key else None,
            allowed_hosts=(*server.LOCAL_HOSTS, server.host_of(bound), host, *(allowed_host or ())),
            cors_origins=tuple(cors_origin or ()),
            queue=together.queue,
            max_body=max_body,
        )
        ready = f"maskprobe serves {names[0]} at {server.url_of(bound)} ({_at_once(llm, lanes)}; Ctrl-C stops it)"
        server.serve(server.create_app(llm, how), bound, lambda: notes.print(ready, soft_wrap=True, markup=False))


def _at_once(llm: MaskProbeLlama, lanes: Lanes) -> str:
    """How many requests are answered at once, and why not more where somebody may wonder."""
    why = llm.drafting.why_in_turn or lanes.why_not_more
    how = f"{llm.n_lanes} requests at once" if llm.n_lanes > 1 else "1 request at a time"
    return f"{how}: {why}" if why else how
