"""``maskprobe serve``: an OpenAI-compatible server."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from .app import app
from .groups import grouped
from .loading import Adapted
from .options import ModelOption, SpeculationOption, notes


@app.command()
@grouped
def serve(
    *,
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 = all, also from outside.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on, 0 = a free one.")] = 8080,
    api_key: Annotated[
        str | None, typer.Option(envvar="MASKPROBE_API_KEY", help="Ask clients for this key.", show_envvar=True)
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Name of the model for clients; default: its file's.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name by which clients may address the server, * = any. Repeatable.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may use the server, * = any. Repeatable.")
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=16, help="Requests that are answered at once, and share passes and the context.")
    ] = 1,
    cache_ram: Annotated[
        float, typer.Option(min=0, help="With --parallel, MiB for conversations that have to leave the context.")
    ] = 1024.0,
    queue: Annotated[int, typer.Option(min=0, help="Most requests that wait for the model.")] = 32,
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

    if api_key == "":
        raise ValueError("the API key is empty; give one, or leave --api-key and MASKPROBE_API_KEY out")
    settings = parse_speculation(speculation)
    arguments = loading.arguments()
    lanes: dict[str, Any] = {"n_parallel": parallel, "cache_ram": cache_ram}
    path = resolve_model(model)
    names = [alias] if alias else []
    names += [path.stem, path.name] + ([model] if model else [])
    with (
        closing(server.bind(host, port)) as bound,  # before the model: a port in use is known at once
        MaskProbeLlama(path, chat_format=chat_format, speculation=settings, **arguments, **lanes) as llm,
    ):
        if api_key is None and not server.is_local(bound):
            notes.print("Whoever reaches this address can use the model; --api-key KEY asks for a key.", style="yellow")
        how = server.Settings(
            names=tuple(names),
            api_key=api_key,
            allowed_hosts=(*server.LOCAL_HOSTS, server.host_of(bound), host, *(allowed_host or ())),
            cors_origins=tuple(cors_origin or ()),
            queue=queue,
            max_body=max_body,
        )
        ready = f"maskprobe serves {names[0]} at {server.url_of(bound)} (Ctrl-C stops it)"
        server.serve(server.create_app(llm, how), bound, lambda: notes.print(ready, soft_wrap=True, markup=False))
