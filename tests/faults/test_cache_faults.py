"""A cache that is cut, damaged, killed over, full or shared gives what was stored or nothing, never something else."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskprobe import cache

ARRAYS = {"mean": np.arange(700, dtype=np.float32), "deviation": np.full(700, 0.5, np.float32)}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and the rest")
    return path


def stored(model: Path) -> Path:
    [path] = (model.parent / "cache").iterdir()
    return path


def assert_absent_or_right(model: Path) -> None:
    arrays = cache.load_arrays("moments", model)
    if arrays is not None:
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_what_is_stored_is_loaded(model: Path) -> None:
    assert cache.load_arrays("moments", model) is None
    assert cache.load_json("costs", model) is None
    cache.store_arrays("moments", model, ARRAYS)
    cache.store_json("costs", model, {"a": [1, 2.5, "ü"]})
    assert cache.load_arrays("moments", model) is not None
    assert_absent_or_right(model)
    assert cache.load_json("costs", model) == {"a": [1, 2.5, "ü"]}


def test_every_cut_and_every_flipped_bit_is_seen(model: Path) -> None:
    cache.store_json("costs", model, {"1": 5.0, "8": 6.5})
    path, whole = stored(model), stored(model).read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        assert cache.load_json("costs", model) is None
        for bit in range(8):
            path.write_bytes(whole[:n] + bytes([whole[n] ^ 1 << bit]) + whole[n + 1 :])
            assert cache.load_json("costs", model) is None
    path.write_bytes(whole + b" ")
    assert cache.load_json("costs", model) is None
    path.write_bytes(whole)
    assert cache.load_json("costs", model) == {"1": 5.0, "8": 6.5}


def test_damaged_arrays_are_none(model: Path) -> None:
    cache.store_arrays("moments", model, ARRAYS)
    path, whole = stored(model), stored(model).read_bytes()
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        data[at : at + rng.choice((0, 1, 4, 512))] = rng.randbytes(rng.choice((0, 1, 4, 512)))
        path.write_bytes(data)
        assert cache.load_arrays("moments", model) is None or data == whole


def test_another_version_is_none(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    cache.store_json("costs", model, [1])
    monkeypatch.undo()
    monkeypatch.setenv("MASKPROBE_CACHE", str(model.parent / "cache"))
    assert cache.load_json("costs", model) is None
    cache.store_json("costs", model, [2])  # and is replaced
    assert cache.load_json("costs", model) == [2]


def test_a_file_under_another_name_is_none(model: Path) -> None:
    cache.store_json("costs", model, [1])
    path = stored(model)
    path.rename(path.with_name(path.name.replace("costs", "probes")))
    assert cache.load_json("probes", model) is None


def test_a_model_that_has_gone_is_no_error(model: Path) -> None:
    model.unlink()
    cache.store_json("costs", model, [1])
    assert cache.load_json("costs", model) is None


@pytest.mark.parametrize("fails", ["mkstemp", "fdopen", "write", "close", "replace"])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk(fails: str, before: bool, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if before:
        cache.store_json("costs", model, ["before"])

    def full(*_: object, **__: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        """A file that takes half of what it is given."""

        def __init__(self, handle: int) -> None:
            self.handle = handle

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.handle)
            if fails == "close":
                full()

        def write(self, data: bytes) -> int:
            os.write(self.handle, data[: len(data) // 2])
            return full() if fails == "write" else len(data)

    with monkeypatch.context() as patch:
        if fails == "mkstemp":
            patch.setattr("tempfile.mkstemp", full)
        elif fails == "replace":
            patch.setattr("os.replace", full)
        else:
            patch.setattr("os.fdopen", full if fails == "fdopen" else lambda handle, _: Full(handle))
        cache.store_json("costs", model, ["after"])
    assert cache.load_json("costs", model) == (["before"] if before else None)
    assert not list((model.parent / "cache").glob("*.part"))


def test_a_cache_that_cannot_be_made_or_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = model.parent / "blocked"
    blocked.write_text("a file in the way")
    monkeypatch.setenv("MASKPROBE_CACHE", str(blocked))
    cache.store_json("costs", model, [1])
    assert cache.load_json("costs", model) is None
    monkeypatch.setenv("MASKPROBE_CACHE", str(model.parent / "cache"))
    cache.store_json("costs", model, [1])
    path = stored(model)
    path.unlink()
    path.mkdir()  # a folder where the file belongs
    cache.store_json("costs", model, [1])
    assert cache.load_json("costs", model) is None
    assert list(path.parent.iterdir()) == [path]


def test_a_read_only_cache_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store_json("costs", model, [1])

    def refused(*_: object, **__: object) -> object:
        raise PermissionError(errno.EROFS, "Read-only file system")

    # Permissions do not stop root, so the refusal comes from the calls that write.
    for name in ("tempfile.mkstemp", "pathlib.Path.mkdir", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(name, refused)
            cache.store_json("costs", model, [2])
            assert cache.load_json("costs", model) == [1]


def test_parts_of_killed_processes_are_removed_once_they_are_old(model: Path) -> None:
    cache.store_json("costs", model, [1])
    folder = stored(model).parent
    old, new = (folder / f"{stored(model).stem}{name}.part" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.store_json("costs", model, [2])
    assert not old.exists()
    assert new.exists()


STORES_FOR_EVER = """
import sys
from pathlib import Path
import numpy as np
from maskprobe import cache
arrays = {"mean": np.arange(700, dtype=np.float32), "deviation": np.full(700, 0.5, np.float32)}
print("ready", flush=True)
while True:
    cache.store_arrays("moments", Path(sys.argv[1]), arrays)
"""


@pytest.fixture
def storing(model: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts processes that store the arrays again and again."""

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", STORES_FOR_EVER, str(model)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.communicate()


def test_killed_writers_leave_right_files_or_none(model: Path, storing: Callable[[], subprocess.Popen[str]]) -> None:
    rng = random.Random(2)
    for _ in range(4):
        process = storing()
        for _ in range(rng.randrange(40)):
            assert_absent_or_right(model)
        kill(process)
        assert_absent_or_right(model)
    cache.store_arrays("moments", model, ARRAYS)
    assert cache.load_arrays("moments", model) is not None


def test_two_processes_store_at_once(model: Path, storing: Callable[[], subprocess.Popen[str]]) -> None:
    writers = [storing(), storing()]
    for _ in range(60):
        cache.store_arrays("moments", model, ARRAYS)
        assert cache.load_arrays("moments", model) is not None
        assert_absent_or_right(model)
    for writer in writers:
        assert writer.poll() is None  # none of them failed
        kill(writer)
