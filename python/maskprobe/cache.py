"""What is found out once per model file and kept in the user's cache directory.

A cached file is complete or absent: it is written beside its place and moved there. A directory that cannot
be written, or a file that cannot be read, only costs the work again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import platformdirs

from .splits import split_paths

Arrays = dict[str, npt.NDArray[Any]]


def directory() -> Path:
    """Where cached files live: $MASKPROBE_CACHE or the platform's cache directory."""
    configured = os.environ.get("MASKPROBE_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("maskprobe", appauthor=False))


def model_key(model: Path) -> str:
    """Changes when a file of the model is replaced or written to."""
    identity = str(model.resolve())
    for part in split_paths(model):
        status = part.stat()
        identity += f"\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def load_arrays(name: str, model: Path) -> Arrays | None:
    """The arrays stored under a name for a model file, None if there are none or they are damaged."""
    try:
        with _path(name, model, "npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return arrays if all(is_numeric(array) for array in arrays.values()) else None


def is_numeric(array: npt.NDArray[Any]) -> bool:
    """Whether an array that came from a file holds plain numbers."""
    return array.dtype.kind in "fiub"


def store_arrays(name: str, model: Path, arrays: Arrays) -> None:
    """Stores arrays under a name for a model file."""
    _store(_path(name, model, "npz"), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_json(name: str, model: Path) -> Any:
    """The JSON value stored under a name for a model file, None if there is none or it is damaged."""
    try:
        return json.loads(_path(name, model, "json").read_bytes())
    except (OSError, ValueError):
        return None


def store_json(name: str, model: Path, value: Any) -> None:
    """Stores a JSON value under a name for a model file."""
    _store(_path(name, model, "json"), lambda file: file.write(json.dumps(value).encode()))


def _path(name: str, model: Path, suffix: str) -> Path:
    return directory() / f"{name}-{model_key(model)}.{suffix}"


def _store(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        pass  # a read-only or full disk
