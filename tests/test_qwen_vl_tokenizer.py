"""Qwen-VL's tokenizer gives the ids that the published algorithm gives, from either of its files."""

from __future__ import annotations

import base64
import random
import unicodedata
from pathlib import Path

import pytest
import regex

from stv_exp.errors import StvError
from stv_exp.models.qwen_vl_v1.tokenizer import QWenTokenizer
from stv_exp.models.qwen_vl_v1.vocabulary import SPECIAL, read_ranks
from tests.oracles.qwen_vl import encoded
from tests.qwen_vl_checkpoint import write_tiktoken

PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "Q: What's the type of bird? A.cat B.dog\nAnswer with the option's letter. Answer:",
    "  two  spaces,\ttabs\r\n\r\nlines \n and 1234 digits",
    "e\u0301 composes, \U0001f426 does not, \u9e1f",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    write_tiktoken(made)
    return made


def scribbles() -> list[str]:
    """Texts of the vocabulary's letters, spaces and others, in which joins compete."""
    draw = random.Random(0)
    return ["".join(draw.choices("aeinort  \n.'1\u00e9", k=40)) for _ in range(300)]


def test_ids_are_those_of_byte_pairs_by_rank(folder):
    tokenizer, ranks = QWenTokenizer.from_pretrained(folder), read_ranks(folder / "qwen.tiktoken")
    for text in (*TEXTS, *scribbles()):
        composed = unicodedata.normalize("NFC", text)
        assert tokenizer(text).input_ids == encoded(composed, ranks, regex.findall(PIECES, composed))
        assert tokenizer.decode(tokenizer(text).input_ids) == composed


def test_tokenizer_json_gives_the_same_ids(folder, tmp_path):
    first = QWenTokenizer.from_pretrained(folder)
    first.save_pretrained(tmp_path)
    assert not (tmp_path / "qwen.tiktoken").exists()
    again = QWenTokenizer.from_pretrained(tmp_path)
    assert [again(text).input_ids for text in TEXTS] == [first(text).input_ids for text in TEXTS]
    assert (again.padding_side, again.pad_token, again.eos_token) == ("left", "<|endoftext|>", "<|endoftext|>")


def test_special_tokens_follow_the_ranks_in_the_published_order(folder):
    """With the published 151,643 ranks they are 151643 to 151859."""
    tokenizer, first = QWenTokenizer.from_pretrained(folder), len(read_ranks(folder / "qwen.tiktoken"))
    offset = 151643 - first
    published = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|extra_0|>": 151646}
    published |= {"<|extra_204|>": 151850, "<ref>": 151851, "</ref>": 151852, "<box>": 151853, "</box>": 151854}
    published |= {"<quad>": 151855, "</quad>": 151856, "<img>": 151857, "</img>": 151858, "<imgpad>": 151859}
    assert {token: tokenizer.convert_tokens_to_ids(token) + offset for token in published} == published
    assert len(SPECIAL) == 217 and tokenizer.decode([first + 1], skip_special_tokens=True) == ""
    assert tokenizer("a<|im_end|>b").input_ids[1] == first + 2


def test_a_folder_without_its_file_is_one_sentence(tmp_path):
    with pytest.raises(
        StvError, match=r"needs qwen\.tiktoken or tokenizer\.json and has neither; fetch qwen\.tiktoken"
    ):
        QWenTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["<html>not found</html>", "IQ== 0 1", "IQ== x"])
def test_another_kind_of_file_is_one_sentence(tmp_path, text):
    (tmp_path / "qwen.tiktoken").write_text(text)
    with pytest.raises(StvError, match=r"qwen\.tiktoken is no tiktoken file"):
        QWenTokenizer.from_pretrained(tmp_path)


def test_a_file_that_was_cut_is_one_sentence(tmp_path):
    lines = [f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(200)]
    (tmp_path / "qwen.tiktoken").write_text("".join(lines))
    with pytest.raises(StvError, match=r"qwen\.tiktoken lacks tokens"):
        QWenTokenizer.from_pretrained(tmp_path)
