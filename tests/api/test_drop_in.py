"""What libraries that take a llama_cpp.Llama look at: its constructor's arguments and its public names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from maskprobe import MaskProbeLlama
from maskprobe.compat.arguments import check_foreign
from maskprobe.compat.drop_in import INSTEAD

QUESTION = [{"role": "user", "content": "Name a colour."}]
TEXTS = ["Hello, wörld", "<|im_start|>user\n", " leading", ""]


# --- the constructor --------------------------------------------------------------------------------------


def foreign() -> dict[str, Any]:
    """The arguments of llama_cpp.Llama that MaskProbeLlama has not, with their defaults."""
    own = inspect.signature(MaskProbeLlama.__init__).parameters
    stock = inspect.signature(llama_cpp.Llama.__init__).parameters
    named = {name: p.default for name, p in stock.items() if p.kind is not p.VAR_KEYWORD}
    return {name: default for name, default in named.items() if name not in own}


def test_every_default_of_llama_cpp_pythons_constructor_is_taken() -> None:
    arguments = foreign()
    assert len(arguments) > 15
    check_foreign(arguments)


OTHER_VALUES = {
    bool: True,
    int: 3,
    float: 0.5,
    type(None): "given",
}
WITHOUT_EFFECT = {"logits_all", "no_perf"}


@pytest.mark.parametrize("name", foreign())
def test_other_values_are_refused_by_name_or_change_nothing(name: str) -> None:
    default = foreign()[name]
    other = {name: False if name in ("op_offload", "swa_full") else OTHER_VALUES[type(default)]}
    if name in WITHOUT_EFFECT:
        check_foreign(other)
    else:
        with pytest.raises(ValueError, match=rf"{name}=.* is not supported: .{{10,}}"):
            check_foreign(other)


def test_what_langchain_passes_is_taken() -> None:
    check_foreign({"lora_base": None, "n_parts": -1, "f16_kv": True, "logits_all": False, "last_n_tokens_size": 64})


def test_the_constructor_asks(tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path("llama")
    with pytest.raises(ValueError, match=r"draft_model=.*speculation"):
        MaskProbeLlama(path, draft_model=object())
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_contxt'"):
        MaskProbeLlama(path, n_contxt=64)
    with MaskProbeLlama(str(path), n_ctx=64, **foreign()) as llm:
        assert llm.n_ctx() >= 64


# --- its names --------------------------------------------------------------------------------------------


def test_every_public_name_is_there_or_says_what_to_use(stock: llama_cpp.Llama, llm: MaskProbeLlama) -> None:
    names = {name for name in dir(stock) if not name.startswith("_")}
    there = {name for name in names if hasattr(llm, name)}
    assert there.isdisjoint(INSTEAD)
    assert names - there == set(INSTEAD)
    for name, instead in INSTEAD.items():
        with pytest.raises(AttributeError, match=f"has no '{name}': {instead.split('(')[0]}"):
            getattr(llm, name)


def test_other_names_are_plain_errors(llm: MaskProbeLlama) -> None:
    with pytest.raises(AttributeError, match=r"MaskProbeLlama has no 'generat'$"):
        _ = llm.generat  # type: ignore[attr-defined]
    assert not hasattr(llm, "__array__")


def test_parameters_are_llama_cpps(stock: llama_cpp.Llama, llm: MaskProbeLlama) -> None:
    assert llm.context_params.n_ctx == stock.context_params.n_ctx == llm.n_ctx()
    for name in ("n_batch", "n_ubatch", "n_threads", "flash_attn_type", "offload_kqv", "type_k"):
        assert getattr(llm.context_params, name) == getattr(stock.context_params, name), name
    for name in ("n_gpu_layers", "split_mode", "load_mode"):
        assert getattr(llm.model_params, name) == getattr(stock.model_params, name), name
    assert (llm.n_embd(), llm.token_nl(), llm.verbose) == (stock.n_embd(), stock.token_nl(), stock.verbose)
    assert llama_cpp.llama_model_n_params(llm.model) == llama_cpp.llama_model_n_params(stock.model)


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizers_agree(text: str, stock: llama_cpp.Llama, llm: MaskProbeLlama) -> None:
    theirs, ours = stock.tokenizer(), llm.tokenizer()
    assert ours.encode(text) == theirs.encode(text)
    assert ours.tokenize(text.encode(), special=False) == theirs.tokenize(text.encode(), special=False)
    ids = theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.detokenize(ids) == theirs.detokenize(ids)
    assert llm.tokenizer_.detokenize(ids, special=True) == stock.tokenizer_.detokenize(ids, special=True)


def test_a_tokenizer_gives_halves_of_characters(llm: MaskProbeLlama) -> None:
    tokenizer = llm.tokenizer()
    pieces = [tokenizer.detokenize([token]) for token in tokenizer.encode("🜁", add_bos=False)]
    assert len(pieces) > 1
    assert b"".join(pieces) == "🜁".encode()


def test_seeds_can_be_set_later(llm: MaskProbeLlama) -> None:
    def sampled() -> str:
        return llm.generate("The", max_tokens=12, temperature=1.5).text

    before = llm._seed
    try:
        llm.set_seed(11)
        first = sampled()
        assert sampled() == first
        llm.set_seed(-1)
        assert llm._seed == llama_cpp.LLAMA_DEFAULT_SEED
        assert {sampled() for _ in range(3)} != {first}
        with pytest.raises(ValueError, match=r"seed must be in -1\.\.4294967295, got -2"):
            llm.set_seed(-2)
    finally:
        llm.set_seed(before)


def test_a_call_may_ask_for_a_random_seed(llm: MaskProbeLlama) -> None:
    texts = {llm.generate("The", max_tokens=12, temperature=1.5, seed=-1).text for _ in range(3)}
    assert len(texts) > 1


def test_answers_in_openais_types(llm: MaskProbeLlama) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0}
    answer = llm.create_chat_completion_openai_v1(QUESTION, **options)
    assert isinstance(answer, ChatCompletion)
    chunks = list(llm.create_chat_completion_openai_v1(messages=QUESTION, stream=True, **options))
    assert {type(chunk) for chunk in chunks} == {ChatCompletionChunk}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (
        text
        == answer.choices[0].message.content
        == llm.create_chat_completion(QUESTION, **options)["choices"][0]["message"]["content"]
    )
