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


def test_chat_template_as_text_without_a_question_or_continued(llm: MaskProbeLlama) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = llm.apply_chat_template(messages, tokenize=False)
    assert text == llm.detokenize(llm.apply_chat_template(messages), special=True)
    end = "<|im_start|>assistant\n"
    assert llm.apply_chat_template(messages, add_generation_prompt=False, tokenize=False) == text.removesuffix(end)
    begun = [*messages, {"role": "assistant", "content": "Hello, "}]
    assert llm.apply_chat_template(begun, tokenize=False) == text + "Hello, "
    assert llm.apply_chat_template(begun) == llm.tokenize(text + "Hello, ", add_bos=False)
    for name in ("tokenize", "add_generation_prompt", "continue_final_message"):
        with pytest.raises(TypeError, match=name):
            llm.apply_chat_template(messages, **{name: "yes"})


def test_a_chat_template_of_the_callers(tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_threads=1, chat_template="{{ messages[0].content }}!") as tiny:
        assert tiny.has_chat_template()
        assert tiny.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"
    for options, why in (
        ({"chat_template": "{% if %}"}, "chat_template is no Jinja template"),
        ({"chat_template": "Hi", "chat_format": "chatml"}, "chat_format and chat_template exclude each other"),
    ):
        with pytest.raises(ValueError, match=why):
            MaskProbeLlama(tiny_path("llama"), n_threads=1, **options)


def test_a_model_without_chat_template_says_so(tiny_path: Callable[[str], Path]) -> None:
    with (
        MaskProbeLlama(tiny_path("llama"), n_threads=1) as tiny,
        pytest.raises(ModelError, match=r"llama\.gguf has no chat template; name a chat_format"),
    ):
        tiny.apply_chat_template([{"role": "user", "content": "Hi"}])
