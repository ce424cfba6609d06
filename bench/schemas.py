"""How engines of structured output treat the JSON Schema test suite: what they refuse, and where they are wrong.

    git clone https://github.com/json-schema-org/JSON-Schema-Test-Suite
    python bench/schemas.py JSON-Schema-Test-Suite ours stock        # and, where they are installed:
    python bench/schemas.py JSON-Schema-Test-Suite outlines xgrammar

Every case of draft 2020-12 is written as compact JSON. An engine may refuse a schema; it should not let through what
its schema forbids.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Accepts = Callable[[str], bool]  # whether a text follows the schema
Engine = Callable[[Any], Accepts]  # raises what it likes for a schema that it refuses


def ours() -> Engine:
    """maskprobe.grammars.grammar.Grammar over the embedded model's vocabulary."""
    return lambda schema: _by_matcher(lambda grammars: grammars.from_schema(schema))


def stock() -> Engine:
    """The GBNF that llama-cpp-python makes of a schema. Where it raises, that puts "any JSON object" in its place."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    return lambda schema: _by_matcher(lambda grammars: grammars.from_gbnf(json_schema_to_gbnf(json.dumps(schema))))


def outlines() -> Engine:
    import regex
    from outlines_core.json_schema import build_regex_from_schema

    def engine(schema: Any) -> Accepts:
        pattern = regex.compile(build_regex_from_schema(json.dumps(schema)))
        return lambda text: pattern.fullmatch(text, timeout=5) is not None

    return engine


def xgrammar() -> Engine:
    import xgrammar

    vocabulary = xgrammar.TokenizerInfo([bytes([i]) for i in range(256)] + [b"</s>"], stop_token_ids=[256])
    compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=1)

    def engine(schema: Any) -> Accepts:
        compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=True, strict_mode=False)

        def accepts(text: str) -> bool:
            matcher = xgrammar.GrammarMatcher(compiled)
            return bool(matcher.accept_string(text) and matcher.accept_token(256))

        return accepts

    return engine


def _by_matcher(grammar_of: Callable[[Any], Any]) -> Accepts:
    from maskprobe.grammars.grammar import Grammar

    vocab = _model().engine.model.vocab
    grammar = grammar_of(Grammar)
    grammar.matcher(vocab)

    def accepts(text: str) -> bool:
        matcher = grammar.matcher(vocab)
        return bool(matcher.consume_tokens(vocab.tokenize(text.encode(), False, False)) and matcher.is_accepting())

    return accepts


_models: list[Any] = []


def _model() -> Any:
    from maskprobe import MaskProbeLlama, embedded_model

    if not _models:
        _models.append(MaskProbeLlama(embedded_model(), n_ctx=256, n_threads=1))
    return _models[0]


def count(engine: Engine, suite: Path) -> Counter[str]:
    """How many schemas it refuses, and how many cases of the others it judges rightly or not."""
    counts: Counter[str] = Counter()
    for path in sorted((suite / "tests" / "draft2020-12").glob("*.json")):
        for group in json.loads(path.read_text("utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {key: value for key, value in schema.items() if key != "$schema"}
            counts["schemas"] += 1
            try:
                accepts = engine(schema)
            except Exception:
                counts["refused"] += 1
                continue
            for case in group["tests"]:
                text = json.dumps(case["data"], ensure_ascii=False, separators=(",", ":"))
                accepted = accepts(text)
                wrong = "rejects what is valid" if case["valid"] else "accepts what is invalid"
                counts["right" if accepted == case["valid"] else wrong] += 1
    return counts


def main() -> None:
    engines = {"ours": ours, "stock": stock, "outlines": outlines, "xgrammar": xgrammar}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="the folder of the test suite")
    parser.add_argument("engines", nargs="+", choices=engines)
    arguments = parser.parse_args()
    for name in arguments.engines:
        counts = count(engines[name](), arguments.suite)
        print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()
