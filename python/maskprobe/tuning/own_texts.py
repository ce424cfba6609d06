"""Texts that a model writes by itself, so that drafts know its phrases before it is asked anything.

A chat model that is given the beginning of its template, up to where the user's message stands, writes a message, and
then answers it (Magpie, Xu et al. 2024, arXiv 2406.08464). Drafting from a store of earlier text is REST (He et al.
2023, arXiv 2311.08252); here the store is the model's own.
"""

from __future__ import annotations

from ..llama import MaskProbeLlama

TOKENS = 5_000  # of answers; more bring little more (docs/drafting.md)
_MARK = "MESSAGE"  # stands for the user's
_MESSAGE_TOKENS, _ANSWER_TOKENS = 100, 200  # at most, and no more than a quarter and a half of the context
_ANSWER_TEMPERATURE = 0.7  # answers are mostly wanted likely, messages various


class Writer:
    """Writes texts; each has a number, and the same number gives the same text."""

    def __init__(self, llm: MaskProbeLlama) -> None:
        self._llm = llm
        self._before, self._behind = _frame(llm)
        self._message_tokens = min(_MESSAGE_TOKENS, llm.n_ctx() // 4)
        self._answer_tokens = min(_ANSWER_TOKENS, llm.n_ctx() // 2)

    def write(self, number: int) -> list[int]:
        """The tokens of one answer to a message of the model's own, or of a text if it has no chat template."""
        prompt = self._before
        if self._behind:
            message = self._llm.generate(prompt, max_tokens=self._message_tokens, temperature=1.0, seed=number)
            prompt = prompt + message.tokens + self._behind
        return self._llm.generate(
            prompt, max_tokens=self._answer_tokens, temperature=_ANSWER_TEMPERATURE, seed=number
        ).tokens


def _frame(llm: MaskProbeLlama) -> tuple[list[int], list[int]]:
    """The tokens before and behind the user's message; all before and nothing behind without a chat template."""
    if llm.has_chat_template():
        ids = llm.apply_chat_template([{"role": "user", "content": _MARK}])
        before, found, behind = llm.detokenize(ids, special=True).rpartition(_MARK)
        if found and behind:
            return llm.tokenize(before, add_bos=False), llm.tokenize(behind, add_bos=False)
    return llm.tokenize("") or llm.tokenize("\n"), []
