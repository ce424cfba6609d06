"""Text and token ids: what goes in comes back, special tokens and BOS are where the model asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models

from maskprobe import MaskProbeLlama, ModelError

TEXTS = [
    "The quick brown fox.",
    "  two  spaces\n\ttab",
    "naïve café",
    "日本語の文",
    "🦊🌲🚲",
    "a\u0000b",
    "don't , stop .",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(text: str, llm: MaskProbeLlama) -> None:
    ids = llm.tokenize(text)
    assert all(0 <= token < llm.n_vocab() for token in ids)
    assert llm.detokenize(ids) == text
    assert llm.tokenize(text.encode()) == ids


def test_special_tokens(llm: MaskProbeLlama) -> None:
    [end] = llm.tokenize("<|im_end|>")
    assert len(llm.tokenize("<|im_end|>", special=False)) > 1
    assert llm.detokenize([end]) == ""
    assert llm.detokenize([end], special=True) == "<|im_end|>"
    with pytest.raises(ValueError, match=r"token id must be in 0\.\.49151, got 49152"):
        llm.detokenize([49_152])


def test_half_a_surrogate_pair_is_no_crash(llm: MaskProbeLlama) -> None:
    assert llm.tokenize("\ud800")


def test_bos_is_added_where_the_model_asks(llm: MaskProbeLlama, tiny_path: Callable[[str], Path]) -> None:
    assert llm.tokenize("") == []
    with MaskProbeLlama(tiny_path("llama"), n_threads=1) as tiny:
        assert tiny.tokenize("") == [tiny_models.BOS]
        assert tiny.tokenize("a", add_bos=False) == [ord("a")]
        as_text = tiny.generate("a", max_tokens=8, temperature=0.0)
        as_ids = tiny.generate([tiny_models.BOS, ord("a")], max_tokens=8, temperature=0.0, cache_prompt=False)
        assert as_text.tokens == as_ids.tokens


def test_chat_template(llm: MaskProbeLlama) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
    ids = llm.apply_chat_template(messages)
    turns = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    assert llm.detokenize(ids, special=True) == turns + "<|im_start|>assistant\n"
    assert ids[0] == llm.tokenize("<|im_start|>")[0]  # one token, and only once though it is this model's BOS
    assert ids[0] != ids[1]


def test_a_model_without_chat_template_says_so(tiny_path: Callable[[str], Path]) -> None:
    with (
        MaskProbeLlama(tiny_path("llama"), n_threads=1) as tiny,
        pytest.raises(ModelError, match=r"llama\.gguf has no chat template; name a chat_format"),
    ):
        tiny.apply_chat_template([{"role": "user", "content": "Hi"}])
