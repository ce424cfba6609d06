"""What long runs have in common: their figures, what they ask, and the memory that is looked at."""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

import psutil

WARM_UP = 0.2  # of a run, before memory is looked at
N_CTX = 256
SUBJECTS = ["the sea", "bread", "a lighthouse", "winter", "the moon", "an old clock", "numbers", "a long journey"]
TASKS = ["Write one sentence about", "Name three things that belong to", "Explain in a few words", "Count to ten for"]


@dataclass
class Soaked:
    """What was done, and the memory it took."""

    kinds: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    compared: int = 0  # answers that were equal to a fresh object's
    shortened: int = 0  # times that the conversation had outgrown the context
    rss_warm: int = 0
    rss_end: int = 0
    seconds: float = 0.0
    full: int = 0  # answers of a conversation that ended because the context was full

    @property
    def growth(self) -> float:
        return self.rss_end / self.rss_warm - 1.0


# --- in process ---------------------------------------------------------------------------------------


def question(rng: random.Random) -> str:
    return f"{rng.choice(TASKS)} {rng.choice(SUBJECTS)}."


def resident(process: psutil.Process | None = None) -> int:
    """Bytes of this process, without what its allocator keeps of memory that was freed, or of another one."""
    gc.collect()
    if process is None and sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int((process or psutil.Process()).memory_info().rss)
