"""A tiny random checkpoint of Qwen-VL (v1) in the published layout."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stv_exp.models.qwen_vl_v1.config import QWenConfig
from stv_exp.models.qwen_vl_v1.model import QWenLMHeadModel
from stv_exp.models.qwen_vl_v1.vocabulary import SPECIAL
from stv_exp.testbed.curriculum import vocabulary
from tests.family_processors import WORDS
from tests.family_weights import built

OLD = [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)]


def write_qwen_vl(folder: Path, **own: Any) -> None:
    """As published but for sizes: no processor's file, a tokenizer of byte pairs, auto_map to code that is not there.

    Rotations grow and queries are scaled beyond 24 tokens, which some prompts have.
    """
    ranks = write_tiktoken(folder)
    start, end = ranks + SPECIAL.index("<img>"), ranks + SPECIAL.index("<|endoftext|>")
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 4, "mlp_ratio": 1.5}
    visual = {**sizes, "output_dim": 256, "n_queries": 4, "image_start_id": start}
    heads = {"num_attention_heads": 4, "kv_channels": 32, "no_bias": False, "seq_length": 24}
    config = QWenConfig(
        vocab_size=ranks + len(SPECIAL) + 4,
        hidden_size=256,
        intermediate_size=192,
        num_hidden_layers=3,
        visual=visual,
        auto_map={
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        **{**heads, **own},
    )
    model = built(QWenLMHeadModel, config)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = end
    model.save_pretrained(folder)


def pickle_weights(folder: Path) -> None:
    """Weights of the old format in the place of the new: three files and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: OLD[i % 3] for i, name in enumerate(tensors)}
    for file in OLD:
        torch.save({name: tensors[name] for name in places if places[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_tiktoken(folder: Path) -> int:
    """`qwen.tiktoken` as published: all bytes, then pairs of tokens before; returns how many there are."""
    words = " ".join([WORDS, *vocabulary()])
    tokens = [bytes([i]) for i in range(256)]
    for size in (2, 3, 4):
        found = Counter(words[i : i + size].encode() for i in range(len(words) - size))
        tokens += [piece for piece, _ in found.most_common(40) if {piece[:-1], piece[1:]} & {*tokens}]
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    (folder / "qwen.tiktoken").write_text("".join(lines))
    return len(tokens)
