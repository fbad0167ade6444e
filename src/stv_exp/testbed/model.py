"""Builds the testbed's Idefics2 from scratch: configuration, initial weights, tokenizer and processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from stv_exp.data.drawing import IMAGE_SIZE

IMAGE_TOKENS = 4
SPECIAL_TOKENS = ["<pad>", "<unk>", "<s>", "\n", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]


def build_tokenizer(words: list[str], special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token for each of `words` and of Idefics2's and your `special` tokens; a newline ends an answer."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL_TOKENS, *words, *special])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="\n",
        padding_side="left",
        additional_special_tokens=[*SPECIAL_TOKENS[-3:], *special],
    )


def build_processor(
    words: list[str], image_size: int = IMAGE_SIZE, image_tokens: int = IMAGE_TOKENS
) -> Idefics2Processor:
    """A real Idefics2 processor whose tokenizer knows `words`."""
    size = {"shortest_edge": image_size, "longest_edge": image_size}
    images = Idefics2ImageProcessorPil(do_image_splitting=False, size=size, image_mean=[0.2] * 3, image_std=[0.25] * 3)
    return Idefics2Processor(images, build_tokenizer(words), image_seq_len=image_tokens)


def build_model(
    processor: Idefics2Processor, layers: int = 4, hidden: int = 128, seed: int = 0
) -> Idefics2ForConditionalGeneration:
    """A randomly initialised Idefics2 of about 1.5 M parameters: 8 query heads of 16 that share 4 key/value heads."""
    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    config = Idefics2Config(
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
        text_config=_text_config(len(tokenizer), tokenizer, layers, hidden),
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 16,
        },
        perceiver_config={
            "hidden_size": hidden,
            "rms_norm_eps": 1e-5,
            "resampler_n_latents": IMAGE_TOKENS,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 32,
            "num_key_value_heads": 4,
        },
    )
    model = Idefics2ForConditionalGeneration(config)
    _initialise(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _text_config(vocabulary: int, tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int) -> dict[str, object]:
    return {
        "model_type": "mistral",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": hidden // 8,
        "max_position_embeddings": 512,
        "sliding_window": None,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


@torch.no_grad()
def _initialise(model: torch.nn.Module) -> None:
    """Wide initial weights, and latents that differ: transformers' ones make all image tokens equal forever."""
    for name, parameter in model.named_parameters():
        if name.endswith("latents"):
            parameter.normal_(0, 1)
        elif "embed_tokens" in name or "position_embedding" in name:
            parameter.normal_(0, 0.5)
        elif parameter.dim() >= 2:
            parameter.normal_(0, 0.8 / parameter[0].numel() ** 0.5)


def save(model: Idefics2ForConditionalGeneration, processor: Idefics2Processor, folder: Path | str) -> None:
    """Write weights, config, processor and tokenizer as `from_pretrained` reads them."""
    disable_progress_bar()  # one file is written at once
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
