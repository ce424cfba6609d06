"""Which kinds of models are probed: loads a tiny random model of each kind and writes docs/architectures.md.

The makers are those of the tests, which also hold the page to what this makes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from maskprobe import MaskProbeLlama, ModelError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "support"))

import tiny_models  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
TESTS = {
    "probed": "test_probed_models_are_lossless",
    "plain": "test_others_are_decoded_plainly",
    "refused": "test_models_that_do_not_generate",
}
HEAD = f"""# Architectures

Whether a model can be probed is found out when it is loaded, not looked up in a list:

- models with recurrent layers, with M-RoPE, or with input embeddings wider than the token embeddings are decoded
  plainly;
- for all others two tokens are decoded by id and by their rows of `token_embd.weight`, times 1, the square root of the
  embedding's width, or the scale in the metadata. The factor that gives the same logits is used (1 also where llama.cpp
  scales rows and ids alike); if none does, the model is decoded plainly;
- what is no decoder, or needs an encoder, is refused.

A model that is decoded plainly says why, once, as a `RuntimeWarning` and in `why_plain`; `speculate=True` is an error
then.

The table is of tiny models with random weights, {tiny_models.N_EMBD} dimensions and {tiny_models.N_LAYER} layers each.
Probed ones give, with four kinds of drafts, the tokens of a separate plain decoder, or part from them where its two
best logits lie within the kernels' noise; so do those decoded plainly. The tests are in `test_architectures.py`
and `test_bad_input.py`; `python bench/architectures.py` writes this page.
"""


def page(path_of: Callable[[str], Path]) -> str:
    """The text of docs/architectures.md; path_of gives a tiny model by name."""
    lines = [
        "| model | architecture | what is particular | probed | embedding scale | why not | checked by |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, path_of(name)) for name in tiny_models.NAMES),
    ]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def _row(name: str, path: Path) -> str:
    outcome, scale, why = _load(path)
    arch, what = tiny_models.describe(name)
    probed = {"probed": "yes", "plain": "no, plain decoding", "refused": "refused"}[outcome]
    return f"| {' | '.join((name, arch, what, probed, scale, why, f'`{TESTS[outcome]}`'))} |"


def _load(path: Path) -> tuple[str, str, str]:
    """What becomes of a model, its embedding scale, and why it is not probed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it is in why_plain
            llm = MaskProbeLlama(path, n_ctx=256, n_threads=1)
    except ModelError as error:
        return "refused", "", str(error).removeprefix(f"{path.name} ")
    with llm:
        if llm.why_plain is not None:
            return "plain", "", llm.why_plain
        return "probed", f"{llm.engine.embedding_scale:g}", ""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(lambda name: tiny_models.make(name, Path(folder) / f"{name}.gguf")))


if __name__ == "__main__":
    main()
