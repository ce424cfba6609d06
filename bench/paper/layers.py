"""Figure 2 of [ESP]: how close a mask's hidden state comes to the true token's, layer by layer.

The root x_t is decoded with its mask behind it, which sees x_1..x_t and stands where x_{t+1} will stand. A step later
x_{t+1} itself stands there and sees the same tokens. The cosine of the two rows' hidden states is taken at the input
and after every layer. Both rows stand before x_{t+2}: the true token's row decides it, the mask's has guessed it. The
guess is accepted when x_{t+2} is among the candidates that the published tree [29] would have drafted under x_{t+1}.

The hidden states come from llama.cpp's scheduler, which shows every tensor to a callback.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskprobe.bench.report import new_figure
from maskprobe.core.embeddings import FloatArray
from maskprobe.errors import MaskProbeError, ModelError
from maskprobe.llama import MaskProbeLlama
from maskprobe.llamacpp.installed import function
from maskprobe.speculation import Speculation

from ..rows import Row, RowContext

CANDIDATES = 29
# The paper's start vector, and the one that foresees more in this model's family.
VECTORS: Mapping[str, Speculation] = {
    "prompt mean": Speculation.paper(60),
    "table mean": Speculation(tree=(CANDIDATES,), probe="table-mean"),
}


@dataclass
class Drift:
    """Cosines by layer, the input first, of accepted and of rejected guesses."""

    accepted: list[FloatArray] = field(default_factory=list)  # [layers] each
    rejected: list[FloatArray] = field(default_factory=list)

    def means(self) -> tuple[FloatArray | None, FloatArray | None]:
        """Mean cosines of the accepted and of the rejected, None where there are none."""
        accepted, rejected = (np.mean(kind, axis=0) if kind else None for kind in (self.accepted, self.rejected))
        return accepted, rejected


class LayerWatch:
    """Copies what leaves the layers while a batch is decoded."""

    def __init__(self) -> None:
        self._name = function("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
        self._size = function("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
        self._copy = function(
            "ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
        )
        self._on = False
        self._seen: dict[int, FloatArray] = {}

    def __call__(self, tensor: int, ask: bool, _: Any) -> bool:
        """As llama.cpp's ``cb_eval``: says which tensors are wanted, and is then shown them."""
        found = re.fullmatch(rb"l_out-(\d+)", self._name(tensor)) if self._on else None
        if ask:
            return found is not None
        if found is not None:
            values = np.empty(self._size(tensor) // 4, dtype=np.float32)
            self._copy(tensor, values.ctypes.data, 0, values.nbytes)
            self._seen[int(found[1])] = values
        return True

    def decode(self, rows: RowContext, batch: Sequence[Row]) -> FloatArray:
        """Decodes a batch. Returns the hidden states of its rows, [rows, 1 + layers, n_embd], the input first.

        Raises:
            ModelError: llama.cpp gives this architecture's layers other names.
        """
        self._seen.clear()
        self._on = True
        try:
            rows.decode(batch)
        finally:
            self._on = False
        shape = (len(batch), rows.n_embd)
        layers = [self._seen[layer] for layer in sorted(self._seen)]
        if not layers or any(values.size != shape[0] * shape[1] for values in layers):
            raise ModelError("llama.cpp does not show what leaves this architecture's layers")
        inputs = np.stack([rows.vector(row.what) for row in batch])
        return np.stack([inputs, *(values.reshape(shape) for values in layers)], axis=1)


def measure(
    llm: MaskProbeLlama,
    prompts: Iterable[Sequence[int]],
    *,
    max_tokens: int,
    console: Console,
    vectors: Mapping[str, Speculation] = VECTORS,
) -> dict[str, Drift]:
    """Follows plain decoding's answers with one mask of each start vector at every token."""
    drifts = {name: Drift() for name in vectors}
    watch = LayerWatch()
    with closing(RowContext(llm, n_sequences=1 + len(vectors), watch=watch)) as rows:
        for prompt in track(list(prompts), "prompts", console=console, transient=True):
            answer = llm.generate(prompt, max_tokens=max_tokens, temperature=0.0, speculate=False).tokens
            _follow(rows, watch, prompt, answer, vectors, drifts)
    return drifts


def _follow(
    rows: RowContext,
    watch: LayerWatch,
    prompt: Sequence[int],
    answer: Sequence[int],
    vectors: Mapping[str, Speculation],
    drifts: Mapping[str, Drift],
) -> None:
    everyone = range(1 + len(vectors))  # each mask is in a sequence of its own
    masks = {name: rows.start_vectors.masks(1, str(of.probe), prompt, 1)[0] for name, of in vectors.items()}
    rows.begin(prompt, everyone)
    before: dict[str, tuple[FloatArray, bool]] = {}  # states of the last step's masks, and whether their guess came
    for i, root in enumerate(answer):
        for name, of in vectors.items():  # every committed token moves the masks, the root too [ESP, eq. 5]
            masks[name] = masks[name] + np.float32(of.update_for(str(of.probe))) * (rows.vector(root) - masks[name])
        at = len(prompt) + i
        batch = [Row(root, at, everyone)]
        batch += [Row(mask, at + 1, [sequence]) for sequence, mask in enumerate(masks.values(), start=1)]
        states = watch.decode(rows, batch)
        for name, (mask_states, accepted) in before.items():
            kind = drifts[name].accepted if accepted else drifts[name].rejected
            kind.append(cosines(mask_states, states[0]))
        if i + 2 >= len(answer):
            return
        before = {
            name: (states[row], answer[i + 2] in candidates(rows.logits(row), answer[i + 1]))
            for row, name in enumerate(vectors, start=1)
        }
        rows.drop(at + 1, everyone)


def cosines(one: FloatArray, other: FloatArray) -> FloatArray:
    """Row by row."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(axis=-1) / lengths, dtype=np.float32)


def candidates(logits: FloatArray, parent: int) -> list[int]:
    """The tokens that a tree drafts under parent: the best ones, without parent itself [ESP, §3.3]."""
    best = np.argpartition(-logits, CANDIDATES)[: CANDIDATES + 1]
    best = best[np.argsort(-logits[best])]
    return [int(token) for token in best if token != parent][:CANDIDATES]


def show(drifts: Mapping[str, Drift], title: str, console: Console) -> None:
    """Prints mean cosines by layer."""
    table = Table(title=title, title_justify="left")
    table.add_column("after layer")
    columns = []
    for name, drift in drifts.items():
        for label, kind, mean in zip(
            ("accepted", "rejected"), (drift.accepted, drift.rejected), drift.means(), strict=True
        ):
            table.add_column(f"{name}: {label} ({len(kind)})", justify="right")
            columns.append(mean)
    n_layers = max((len(mean) for mean in columns if mean is not None), default=0)
    for layer in range(n_layers):
        cells = ("-" if mean is None else f"{mean[layer]:.3f}" for mean in columns)
        table.add_row(str(layer) if layer else "input", *cells)
    console.print(table)


def plot(drifts: Mapping[str, Drift], path: Path) -> None:
    """Writes the plot as a PNG file.

    Raises:
        MaskProbeError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    for i, (name, drift) in enumerate(drifts.items()):
        for label, mean, style in zip(("accepted", "rejected"), drift.means(), ("-", ":"), strict=True):
            if mean is not None:
                axes.plot(range(len(mean)), mean, style, color=f"C{i}", label=f"{name}: {label}")
    axes.set_xlabel("after layer (0: the input)")
    axes.set_ylabel("cosine to the true token's hidden state")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=130, format="png")
    except OSError as error:
        raise MaskProbeError(f"the plot cannot be written to {path}: {error.strerror}") from error
