"""The tokenizer of the tiny models: token ids 0 to 255 are the bytes, then come the merges, BOS and EOS."""

from __future__ import annotations

import gguf

MERGES = [
    *("Ġ t", "h e", "Ġt he", "Ġ a", "i n", "e r", "a n", "o n", "r e", "Ġ s", "a t", "e n", "o r", "Ġ w", "e s"),
    *("i s", "i t", "o u", "Ġa n", "Ġan d", "n d", "Ġ o", "Ġo f", "Ġt o", "Ġ b", "a l", "Ġ i", "Ġi n", "in g", "e d"),
    *("Ġ c", "Ġ m", "Ġ f", "l e", "Ġ h", "Ġ p", "a r", "s t", "l l", "o m", "v e", "Ġ d"),
]
BOS = 256 + len(MERGES)
EOS = BOS + 1
N_VOCAB = EOS + 1


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    tokens = [*_byte_symbols(), *(merge.replace(" ", "") for merge in MERGES), "<s>", "</s>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([normal] * BOS + [control] * 2)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)
    writer.add_token_type_count(2)  # encoders refuse to load without it


def _byte_symbols() -> list[str]:
    """GPT-2's characters for the 256 bytes: printable ones stand for themselves, the rest follow from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
