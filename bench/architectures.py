"""How kinds of models are drafted: loads a tiny random model of each kind and writes docs/architectures.md.

The makers are those of the tests, which also hold the page to what this makes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from maskprobe import MaskProbeLlama, ModelError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "support"))

import tiny_models  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
TESTS = {
    "trees, with masks": "test_trees_with_masks_are_lossless",
    "trees": "test_trees_without_masks_are_lossless",
    "chains": "test_chains_are_lossless",
    "refused": "test_models_that_do_not_generate",
}
HEAD = f"""# Architectures

For those who want to know whether their kind of model gains. How a model can be drafted is found out when it is loaded;
`maskprobe info MODEL` and `llm.drafting` say it:

- *trees*: the KV cache keeps a cell per token, so drafts may branch and are taken back cell by cell;
- *chains*: the model keeps a recurrent state, in some of its layers or in all. One chain of drafts at a time, which is
  taken back by snapshots of the state, where llama.cpp keeps them and `snapshot_memory` has room, or else by trying it
  in a copy of the state: if not all of it is accepted, what was is decoded again with the next pass, at a price that is
  known before;
- *masks* ride where embedding rows stand for token ids: two tokens are decoded by id and by their rows of
  `token_embd.weight`, times 1, the square root of the embedding's width, or the scale in the metadata, and the factor
  that gives the same logits is used. Where none does, and in copies, drafts come from all other evidence;
- what is no decoder, or needs an encoder, is refused.

A few architectures for which llama.cpp would end the process at embedding rows are known by name: no masks there.

The table is of tiny models with random weights, {tiny_models.N_EMBD} dimensions and two or four layers each.
They give the tokens of a separate plain decoder, or part from them where its two best logits lie within the kernels'
noise. The tests are in `test_architectures.py` and `test_bad_input.py`; `python bench/architectures.py` writes this
page.
"""


def page(path_of: Callable[[str], Path]) -> str:
    """The text of docs/architectures.md; path_of gives a tiny model by name."""
    lines = [
        "| model | architecture | what is particular | drafts | embedding scale | why not more | checked by |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, path_of(name)) for name in tiny_models.NAMES),
    ]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def _row(name: str, path: Path) -> str:
    arch, what = tiny_models.describe(name)
    drafts, scale, why, test = _load(path)
    return f"| {' | '.join((name, arch, what, drafts, scale, why, f'`{TESTS[test]}`'))} |"


def _load(path: Path) -> tuple[str, str, str, str]:
    """How a model is drafted, its embedding scale, why there is not more, and which test holds it to that."""
    try:
        llm = MaskProbeLlama(path, n_ctx=256, n_threads=1)
    except ModelError as error:
        return "refused", "", str(error).removeprefix(f"{path.name} "), "refused"
    with llm:
        drafting, scale = llm.drafting, llm.engine.embedding_scale
        drafts = f"{drafting.shape}, with masks" if drafting.masks else drafting.shape
        if drafting.shape == "chains":
            drafts += ", by snapshots" if drafting.n_snapshots else ", in copies"
        why = "; ".join(filter(None, (drafting.why_no_trees, drafting.why_no_masks)))
        test = drafts if drafts in TESTS else drafting.shape
        return drafts, f"{scale:g}" if scale is not None and drafting.masks else "", why, test


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(lambda name: tiny_models.make(name, Path(folder) / f"{name}.gguf")))


if __name__ == "__main__":
    main()
