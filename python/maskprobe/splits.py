"""Names of split GGUF models: NAME-00001-of-00003.gguf and so on."""

from __future__ import annotations

import re
from pathlib import Path

_SPLIT_NAME = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.gguf$")


def split_paths(path: Path) -> list[Path]:
    """All files of a model, given the first of a split one or the only one."""
    match = _split_name(path)
    if match is None:
        return [path]
    stem, count = path.name[: match.start()], int(match[2])
    return [path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


def model_stem(path: Path) -> str:
    """The name of a model file without its suffix and, in a split model, without the number of the part."""
    match = _split_name(path)
    return path.stem if match is None else path.name[: match.start()]


def _split_name(path: Path) -> re.Match[str] | None:
    match = _SPLIT_NAME.search(path.name)
    return match if match and 1 <= int(match[1]) <= int(match[2]) else None
