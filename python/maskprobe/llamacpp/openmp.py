"""Threads that OpenMP keeps for whoever has computed last.

OpenMP gives each thread that computes helpers of its own and keeps them. Once two threads of a process have some, they
are more than its processors, and GNU's runtime has them all sleep at each of the several hundred points of a pass where
they wait for one another: passes take up to twice as long. So whoever has finished computing lets its helpers go.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from .installed import function_address

_SOFT = 1  # omp_pause_soft: they are made anew when they are needed


def release_threads() -> None:
    """Lets go of the calling thread's helpers; nothing happens where there are none, or no OpenMP."""
    _pause()(_SOFT)


@cache
def _pause() -> Callable[[int], int]:
    address = function_address("omp_pause_resource_all")
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address) if address else lambda _: 0
