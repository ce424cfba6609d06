"""Samplers of llama.cpp's chain that are written in Python: ctypes' side of them alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .installed import llama_cpp

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]
Accept = Callable[[int], Any]
Apply = Callable[[Ids, Logits], None]


class _TokenData(ctypes.Structure):
    """llama_token_data, with types that numpy reads."""

    _fields_ = [("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float)]


def python_sampler(accept: Accept, apply: Apply) -> tuple[Any, Any]:
    """A llama_sampler for a chain, which then owns it, and what must live as long as that chain.

    Args:
        accept: told every token that was drawn.
        apply: given the ids that are left to choose from and their logits, views of llama.cpp's memory, before each
            draw. llama.cpp has no way for exceptions: it lets none out.
    """

    def c_accept(_: Any, token: int) -> None:
        accept(token)

    def c_apply(_: Any, candidates: Any) -> None:
        array = candidates.contents
        data = np.ctypeslib.as_array(ctypes.cast(array.data, ctypes.POINTER(_TokenData)), (array.size,))
        apply(data["id"], data["logit"])

    interface = llama_cpp.llama_sampler_i(
        accept=llama_cpp.llama_sampler_i_accept(c_accept),
        apply=llama_cpp.llama_sampler_i_apply(c_apply),
    )
    return llama_cpp.llama_sampler_init(ctypes.byref(interface), None), interface
