"""Small arrays that are computed once per model file and kept in the user's cache directory.

A cached file is complete or absent: it is written beside its place and moved there. A directory that cannot
be written, or a file that cannot be read, only costs the computation again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

Arrays = dict[str, npt.NDArray[np.float32]]


def directory() -> Path:
    """Where cached files live: $MASKPROBE_CACHE or the platform's cache directory."""
    configured = os.environ.get("MASKPROBE_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("maskprobe", appauthor=False))


def model_key(path: Path) -> str:
    """Changes when the model file is replaced or written to."""
    status = path.stat()
    identity = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def load_or_compute(name: str, model: Path, shape: tuple[int, ...], compute: Callable[[], Arrays]) -> Arrays:
    """The named arrays of a model, all of the given shape, from the cache if they are there."""
    path = directory() / f"{name}-{model_key(model)}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        if all(a.shape == shape and a.dtype == np.float32 and np.isfinite(a).all() for a in arrays.values()):
            return arrays
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # absent or damaged
    arrays = compute()
    _store(path, arrays)
    return arrays


def _store(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        pass  # a read-only or full disk
