"""Reads `qwen.tiktoken`, the published byte pairs, into a fast tokenizer.

tiktoken joins the two neighbours whose joined bytes have the lowest rank; the merges here are all pairs that give a
token, in the order of that token's rank, which comes to the same.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from stv_exp.errors import StvError

FILE = "qwen.tiktoken"
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE_PAD = "<img>", "</img>", "<imgpad>"
_BOXES = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
SPECIAL = (
    *(END, TURN_START, TURN_END),
    *(f"<|extra_{i}|>" for i in range(205)),
    *_BOXES,
    *(IMAGE_START, IMAGE_END, IMAGE_PAD),
)
# Contractions; a word with one sign before it; a digit; signs with a space before; lines; spaces.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_ranks(file: Path) -> dict[bytes, int]:
    """The rank, which is also the id, of every token; raises `StvError` for another kind of file."""
    try:
        lines = [line.split() for line in file.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise StvError(f"{file.name} is no tiktoken file (lines of base64 and rank); fetch it again.") from error
    if sorted(ranks.values()) != list(range(len(lines))) or any(bytes([i]) not in ranks for i in range(256)):
        raise StvError(f"{file.name} lacks tokens (ranks from 0 on and all 256 bytes); fetch it again.")
    return ranks


def build_tokenizer(ranks: dict[bytes, int]) -> Tokenizer:
    """The tokenizer of these ranks, with Qwen-VL's special tokens behind them."""
    letters = _letters()
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [pair for token in sorted(ranks, key=lambda token: ranks[token]) for pair in _pairs(token, ranks)]
    model = models.BPE(
        vocab={names[token]: rank for token, rank in ranks.items()},
        merges=[(names[left], names[right]) for left, right in merges],
        ignore_merges=True,  # a piece that is a token is that token
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _pairs(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
    return [(left, right) for left, right in cuts if left in ranks and right in ranks]


def _letters() -> list[str]:
    """The letter that stands for each byte in the files of byte-level tokenizers: itself where it can be printed."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    code = {byte: byte for byte in printed} | {byte: 256 + i for i, byte in enumerate(others)}
    return [chr(code[byte]) for byte in range(256)]
