"""``maskprobe info``: what is known of a model, from its file, from the cache and from this machine."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from .. import cpu_kernels
from ..drafting import costs, store
from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..llamacpp.installed import llama_cpp
from ..splits import split_paths
from .app import app
from .gpu import gpu_in_words
from .groups import grouped
from .loading import Machine
from .options import ModelArgument, tables
from .terminal import pipes, write

_N_CTX = 512  # nothing here depends on it
_CHANCES = (0.6, 0.8, 0.95)


@app.command()
@grouped
def info(
    *,
    model: ModelArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    machine: Machine,
) -> None:
    """Show what a model is, how it is drafted, and what rows cost on this machine."""
    path = resolve_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a model that cannot be probed: the table says so
        llm = MaskProbeLlama(path, n_ctx=_N_CTX, **machine.arguments())
    with llm:
        found = model_facts(llm) | probing_facts(llm)
    with pipes():
        if as_json:
            write(json.dumps(found, indent=2) + "\n")
        else:
            tables().print(_table(found))


def model_facts(llm: MaskProbeLlama) -> dict[str, Any]:
    """What the file says."""
    model = llm.engine.model
    handle = model.model
    return {
        "file": str(model.path),
        "file_bytes": sum(part.stat().st_size for part in split_paths(model.path)),
        "name": model.metadata("general.name"),
        "architecture": model.metadata("general.architecture"),
        "parameters": int(llama_cpp.llama_model_n_params(handle)),
        "quantization": llama_cpp.llama_ftype_name(llama_cpp.llama_model_ftype(handle)).decode(),
        "context_length": int(llama_cpp.llama_model_n_ctx_train(handle)),
        "vocabulary": model.n_vocab,
        "layers": int(llama_cpp.llama_model_n_layer(handle)),
        "embedding": model.n_embd,
        "chat_template": llm.has_chat_template(),
        "cpu_kernels": _kernels_in_words(llm),
        "gpu": gpu_in_words(llm),
    }


def _kernels_in_words(llm: MaskProbeLlama) -> str:
    if not llm.engine.model.options.cpu_kernels:
        return "llama.cpp's own: --no-cpu-kernels"
    return str(cpu_kernels.status())


def probing_facts(llm: MaskProbeLlama) -> dict[str, Any]:
    """Whether drafts are made, what is kept for them in the cache, and what their rows cost here."""
    engine = llm.engine
    drafting = llm.drafting
    if drafting.shape == "none":
        return {"drafting": str(drafting)} | asdict(drafting)
    path = engine.model.path
    choice = engine.knowledge.probe_choice()
    means = {} if choice is None else {name: choice.mean(name) for name in choice.names}
    scores = {name: round(mean, 3) for name, mean in means.items() if mean > float("-inf")}
    measured = engine.knowledge.measured_costs()
    curve = costs.interpolate(measured, costs.MEASURED_ROWS)
    return {
        "drafting": str(drafting),
        **asdict(drafting),
        "start_vector": None if choice is None else choice.name(),
        "start_vector_scores": scores,
        "tuned_costs": store.load_costs(path, engine.setup) is not None,
        "tuned_adjacency": store.load_adjacency(path, engine.model.n_vocab) is not None,
        "tuned_texts": bool(store.load_texts(path, engine.model.n_vocab)),
        "setup": engine.setup,
        "cost_curve": [
            {"rows": rows, "ms": round(ms, 3), "plain_passes": round(ms / measured[1], 3)}
            for rows, ms in measured.items()
        ],
        "rows_that_pay": {f"{chance:g}": costs.best_rows(curve, chance)[0] for chance in _CHANCES},
        "outlook": costs.outlook(curve),
    }


def _table(found: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(found).items():
        table.add_row(label, value)
    return table


def _rows(found: dict[str, Any]) -> dict[str, str]:
    """The facts as people read them."""
    rows = {
        "file": f"{found['file']}, {found['file_bytes'] / 1e6:,.0f} MB",
        "model": f"{found['name'] or 'without a name'}, {found['architecture']}",
        "parameters": f"{found['parameters'] / 1e6:,.0f} million, {found['quantization']}",
        "context length": f"{found['context_length']:,} tokens",
        "vocabulary": f"{found['vocabulary']:,} tokens",
        "layers": f"{found['layers']}, {found['embedding']} wide",
        "chat template": "yes" if found["chat_template"] else "no",
        "CPU kernels": found["cpu_kernels"],
    }
    if found["gpu"] is not None:
        rows["GPU"] = found["gpu"]
    rows["drafts"] = found["drafting"]
    if found["shape"] == "none":
        return rows
    scores = ", ".join(f"{name} {score:.2f}" for name, score in found["start_vector_scores"].items())
    tuned_parts = [part for part in ("costs", "adjacency", "texts") if found[f"tuned_{part}"]]
    curve = found["cost_curve"]
    pay = ", ".join(f"{rows} at {100 * float(chance):.0f} %" for chance, rows in found["rows_that_pay"].items())
    return rows | {
        "start vector": f"{found['start_vector'] or 'none'} next" + (f"; scores so far: {scores}" if scores else ""),
        "tuned": ", ".join(tuned_parts) if tuned_parts else "no; maskprobe tune does it, once",
        "machine": found["setup"],
        "rows": ", ".join(f"{point['rows']}: {point['ms']:.1f} ms" for point in curve),
        "in plain passes": ", ".join(f"{point['rows']}: {point['plain_passes']:.2f}" for point in curve),
        "rows that pay": f"{pay} of drafted tokens right",
        "outlook": found["outlook"],
    }
