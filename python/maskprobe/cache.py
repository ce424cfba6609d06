"""What is found out once per model file and kept in the user's cache directory.

A cached file is complete or absent: it is written beside its place and moved there. It begins with its format and a
checksum over its name and contents, so one that was cut, damaged, renamed or written by another version is none. A
directory that cannot be written, or a file that cannot be read, only costs the work again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from .splits import split_paths

Arrays = dict[str, npt.NDArray[Any]]

FORMAT = 1  # raise it when what is stored changes its meaning
_ABANDONED_S = 3600.0  # a part this old belongs to a process that was killed


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
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def load_arrays(name: str, model: Path) -> Arrays | None:
    """The arrays stored under a name for a model file, None if there are none or they are damaged."""
    contents = _load(name, model)
    if contents is None:
        return None
    with np.load(io.BytesIO(contents), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def is_numeric(array: npt.NDArray[Any]) -> bool:
    """Whether an array that came from a file holds plain numbers."""
    return array.dtype.kind in "fiub"


def store_arrays(name: str, model: Path, arrays: Arrays) -> None:
    """Stores arrays under a name for a model file."""
    contents = io.BytesIO()
    np.savez(contents, **arrays)  # type: ignore[arg-type]
    _store(name, model, contents.getvalue())


def load_json(name: str, model: Path) -> Any:
    """The JSON value stored under a name for a model file, None if there is none or it is damaged."""
    contents = _load(name, model)
    return None if contents is None else json.loads(contents)


def store_json(name: str, model: Path, value: Any) -> None:
    """Stores a JSON value under a name for a model file."""
    _store(name, model, json.dumps(value).encode())


def load_shared_json(name: str) -> Any:
    """The JSON value stored under a name for no model in particular, None if there is none or it is damaged."""
    contents = _read(directory() / f"{name}.cache")
    return None if contents is None else json.loads(contents)


def store_shared_json(name: str, value: Any) -> None:
    """Stores a JSON value under a name for no model in particular."""
    with contextlib.suppress(OSError):
        _write(directory() / f"{name}.cache", json.dumps(value).encode())


def _path(name: str, model: Path) -> Path:
    return directory() / f"{name}-{model_key(model)}.cache"


def _header(path: Path, contents: bytes) -> bytes:
    digest = hashlib.sha256(path.name.encode() + b"\0" + contents).hexdigest()
    return f"maskprobe cache {FORMAT} {digest}\n".encode()


def _load(name: str, model: Path) -> bytes | None:
    try:
        return _read(_path(name, model))
    except OSError:
        return None


def _store(name: str, model: Path, contents: bytes) -> None:
    # A read-only or full disk, or a model file that has gone: the work is done again next time.
    with contextlib.suppress(OSError):
        _write(_path(name, model), contents)


def _read(path: Path) -> bytes | None:
    try:
        header, _, contents = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return contents if header + b"\n" == _header(path, contents) else None


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_header(path, contents) + contents)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_abandoned(path: Path) -> None:
    for part in path.parent.glob(f"{path.stem}*.part"):
        with contextlib.suppress(OSError):
            if part.stat().st_mtime < time.time() - _ABANDONED_S:
                part.unlink()
