"""Stock llama.cpp as the other runner, in a process of its own; what runs there is plain_llama_cpp.py."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from ..errors import MaskProbeError
from ..llama import MaskProbeLlama

_PROGRAM = Path(__file__).with_name("plain_llama_cpp.py")


class StockError(MaskProbeError):
    """Stock llama.cpp could not be run; the message has its last words."""


class Stock:
    """Plain decoding of the model that is loaded, with its threads, layers on the GPU and context.

    Raises:
        StockError: it cannot be started.
    """

    def __init__(self, llm: MaskProbeLlama) -> None:
        settings = {
            "model": str(llm.model_path),
            "n_ctx": llm.n_ctx(),
            "n_threads": llm.n_threads(),
            "n_gpu_layers": llm.n_gpu_layers,
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def answer(self, prompt: Sequence[int], max_tokens: int) -> Iterator[tuple[int, float]]:
        """Tokens as they come, each with the milliseconds since the first.

        Raises:
            StockError: the process has ended.
        """
        self._ask(prompt, max_tokens)
        while (said := self._read()) is not None:
            yield said[0], said[1]

    def gap(self, text: Sequence[int]) -> float:
        """How far apart the two best logits behind a text are.

        Raises:
            StockError: the process has ended.
        """
        self._ask(text, 0)
        return float(self._read())

    def _ask(self, prompt: Sequence[int], max_tokens: int) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"prompt": list(prompt), "max_tokens": max_tokens}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _read(self) -> Any:
        assert self._process.stdout is not None
        try:
            return json.loads(self._process.stdout.readline())
        except ValueError:  # it has ended, or llama.cpp's last words came this way
            self._process.kill()
            raise self._failure() from None

    def _failure(self) -> StockError:
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return StockError(f"stock llama.cpp ended early: {lines[-1] if lines else self._process.returncode}")

    def close(self) -> None:
        """Ends the process; closing twice is fine."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdout.close()
        with suppress(BrokenPipeError):  # of what was not read
            self._process.stdin.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
