"""BOS stands at the start of a prompt once, where the model wants it, whichever way the prompt comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models

from maskprobe import MaskProbeLlama, Speculation

BOS = tiny_models.BOS
HELLO = [{"role": "user", "content": "Hello"}]
TEMPLATES = {
    "with": "<s>{% for m in messages %}{{ m.content }}{% endfor %}",
    "by variable": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "without": "{% for m in messages %}{{ m.content }}{% endfor %}",
}


@pytest.fixture(params=TEMPLATES)
def llm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MaskProbeLlama]:
    path = tiny_models.make("llama", tmp_path / "model.gguf", chat_template=TEMPLATES[request.param])
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        yield llm


def prompts_of(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts that generations begin with from now on."""
    seen: list[list[int]] = []
    begin = llm.engine.session.begin

    def noted(prompt: list[int], *arguments: object, **options: object) -> object:
        seen.append(prompt)
        return begin(prompt, *arguments, **options)

    monkeypatch.setattr(llm.engine.session, "begin", noted)
    return seen


def test_chats_begin_with_one(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [BOS, *llm.tokenize("Hello", add_bos=False)]
    assert llm.apply_chat_template(HELLO) == expected  # what the command line asks
    assert llm.apply_chat_template(HELLO, parse_special=True) == expected
    seen = prompts_of(llm, monkeypatch)
    llm.create_chat_completion(HELLO, max_tokens=1)
    llm.create_chat_completion(HELLO, max_tokens=1, parse_special=True)
    assert seen == [expected, expected]
    spelled = llm.apply_chat_template([{"role": "user", "content": "<s>Hello"}])
    assert (spelled[0], spelled.count(BOS)) == (BOS, 1)
    assert len(spelled) > len(expected)  # the message's own is text


@pytest.mark.parametrize("text", ["Hello", "<s>Hello"])
def test_texts_begin_with_one(text: str, tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        expected = [BOS, *llm.tokenize("Hello", add_bos=False)]
        assert llm.tokenize(text) == expected
        seen = prompts_of(llm, monkeypatch)
        llm.generate(text, max_tokens=1)
        llm.create_completion(text, max_tokens=1)
        assert seen == [expected, expected]
        assert llm.tokenize("<s>Hello", add_bos=False).count(BOS) == 1
        assert llm.tokenize("<s>Hello", special=False).count(BOS) == 1  # then the one in the text is text
        assert len(llm.tokenize("<s>Hello", special=False)) > len(expected)


def test_a_model_that_wants_none_gets_the_one_that_is_written(llm_q4: MaskProbeLlama) -> None:
    assert llm_q4.tokenize("Hello")[0] != llm_q4.token_bos()
    assert llm_q4.tokenize("<|im_start|>Hello").count(llm_q4.token_bos()) == 1
    assert llm_q4.tokenize("<|im_start|><|im_start|>Hello").count(llm_q4.token_bos()) == 2


@pytest.fixture(scope="module")
def llm_q4(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        yield llm
