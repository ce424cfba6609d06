"""The exceptions users see. Plain argument errors are ValueError or TypeError as usual in Python."""

from __future__ import annotations


class MaskProbeError(Exception):
    """Base of every error that is not a plain argument error."""


class BindingError(MaskProbeError):
    """The installed llama-cpp-python does not fit this package."""


class ModelError(MaskProbeError):
    """A model file is missing, unreadable, or not something that generates text."""


class HubError(MaskProbeError):
    """A model cannot be had from the hub, nor from its cache."""


class RpcError(MaskProbeError):
    """An RPC server cannot be used, or the installed llama.cpp has no RPC."""


class UnsupportedModelError(MaskProbeError):
    """Speculation was required, by ``speculate=True`` or a Speculation, that the model takes no such drafts for."""


class ContextError(MaskProbeError, ValueError):
    """The prompt does not fit into the context."""


class DecodeError(MaskProbeError):
    """llama.cpp failed inside a pass. The model object stays usable."""


class SamplingError(MaskProbeError):
    """Nothing is left to sample: a grammar, biases or both rule every token out. The model object stays usable."""


class BusyError(MaskProbeError):
    """The model object is already generating: as many answers as it has room for, and no queue to wait in."""


class StateError(MaskProbeError):
    """A saved state is missing, damaged, or of another model or other settings. The object stays usable."""


class ForkError(MaskProbeError):
    """The model object was loaded by a parent process and is used in a fork of it."""


class ClosedError(MaskProbeError):
    """The model object was closed."""
