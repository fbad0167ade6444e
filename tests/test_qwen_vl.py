"""Qwen-VL (v1) equals its published description, written out in `oracles/qwen_vl`, on tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from stv_exp.config import ModelConfig, TemplateConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_backbone
from stv_exp.models.qwen_vl_v1.config import QWenConfig
from stv_exp.models.qwen_vl_v1.model import QWenLMHeadModel
from stv_exp.models.qwen_vl_v1.resampler import sines
from stv_exp.models.qwen_vl_v1.rotary import ntk_growth
from tests.family_weights import built
from tests.oracles import qwen_vl as oracle
from tests.qwen_vl_checkpoint import write_qwen_vl

PICTURES = [Image.effect_mandelbrot((64, 48), (-2, -1.2, 1 + i / 4, 1.2), 20).convert("RGB") for i in range(3)]
TEXTS = ["<img></img>Q: cat or dog? A:", "<img></img>one <img></img>two <img></img>three four A:", "no picture"]
SHOWN = [PICTURES[:1], PICTURES, []]
VISUAL = {  # of the published config
    "heads": 16,
    "image_size": 448,
    "image_start_id": 151857,
    "layers": 48,
    "mlp_ratio": 4.9231,
    "output_dim": 4096,
    "patch_size": 14,
    "width": 1664,
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("qwen_vl")
    write_qwen_vl(made)
    return made


@pytest.fixture(scope="module")
def model(folder) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder) -> Any:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def plain(model) -> oracle.QwenVL:
    return oracle.QwenVL(model.state_dict(), model.config.to_dict())


def row(processor: Any, text: str, shown: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids `[T]` and pictures `[N, 3, S, S]` of one text."""
    batch = processor(text=[text], images=[shown], return_tensors="pt")
    return batch["input_ids"][0], batch.get("pixel_values", torch.zeros(0, 3, 32, 32))


def long(processor: Any, tokens: int) -> torch.Tensor:
    """Ids of a text without pictures that has this many tokens."""
    ids = processor.tokenizer("one two three cat dog " * (tokens // 4 + 1)).input_ids
    assert len(ids) >= tokens
    return torch.tensor(ids[:tokens])


def test_every_published_parameter_has_its_name_and_shape():
    """The names and shapes of `pytorch_model.bin.index.json` and the published config, of as many bytes as it says."""
    with torch.device("meta"):
        model = QWenLMHeadModel(QWenConfig(visual=VISUAL))
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == dict(_published())
    assert (len(found), sum(2 * tensor.numel() for tensor in model.state_dict().values())) == (853, 19313870336)


def _published() -> Any:
    yield from [("transformer.wte.weight", (151936, 4096)), ("lm_head.weight", (151936, 4096))]
    yield "transformer.ln_f.weight", (4096,)
    for i in range(32):
        at = f"transformer.h.{i}"
        yield from [(f"{at}.ln_1.weight", (4096,)), (f"{at}.ln_2.weight", (4096,))]
        yield from [(f"{at}.attn.c_attn.weight", (12288, 4096)), (f"{at}.attn.c_attn.bias", (12288,))]
        yield f"{at}.attn.c_proj.weight", (4096, 4096)
        yield from [(f"{at}.mlp.w1.weight", (11008, 4096)), (f"{at}.mlp.w2.weight", (11008, 4096))]
        yield f"{at}.mlp.c_proj.weight", (4096, 11008)
    at = "transformer.visual"
    yield from [(f"{at}.conv1.weight", (1664, 3, 14, 14)), (f"{at}.positional_embedding", (256, 1664))]
    yield from [(f"{at}.proj", (4096, 4096)), (f"{at}.attn_pool.kv_proj.weight", (4096, 1664))]
    yield from [(f"{at}.attn_pool.query", (256, 4096)), (f"{at}.attn_pool.pos_embed", (256, 4096))]
    yield from [(f"{at}.attn_pool.attn.in_proj_weight", (12288, 4096)), (f"{at}.attn_pool.attn.in_proj_bias", (12288,))]
    yield from _linear(f"{at}.attn_pool.attn.out_proj", 4096, 4096)
    for name, width in (("ln_pre", 1664), ("ln_post", 4096), ("attn_pool.ln_q", 4096), ("attn_pool.ln_kv", 4096)):
        yield from _linear(f"{at}.{name}", width)
    for i in range(48):
        block = f"{at}.transformer.resblocks.{i}"
        yield from [*_linear(f"{block}.ln_1", 1664), *_linear(f"{block}.ln_2", 1664)]
        yield from [*_linear(f"{block}.attn.in_proj", 4992, 1664), *_linear(f"{block}.attn.out_proj", 1664, 1664)]
        yield from [*_linear(f"{block}.mlp.c_fc", 8192, 1664), *_linear(f"{block}.mlp.c_proj", 1664, 8192)]


def _linear(name: str, *shape: int) -> Any:
    return [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]


@torch.inference_mode()
def test_vision_tower_resampler_and_features_equal_the_oracle(model, processor, plain):
    _, pictures = row(processor, TEXTS[1], SHOWN[1])
    tower = model.transformer.visual
    for picture, patches, features in zip(pictures, tower.patches(pictures), tower(pictures), strict=True):
        expected = plain.patches(picture)
        torch.testing.assert_close(patches.double(), expected, **CLOSE)
        resampled = tower.attn_pool(expected[None].to(patches))[0]
        torch.testing.assert_close(resampled.double(), plain.resampled(expected), **CLOSE)
        torch.testing.assert_close(features.double(), plain.features(picture), **CLOSE)
    assert (tower(pictures)[0] - tower(pictures)[1]).abs().max() > 0.1, "pictures differ"


@pytest.mark.parametrize(("side", "width"), [(2, 256), (16, 4096)])
def test_places_of_a_grid_equal_the_oracles(side, width):
    torch.testing.assert_close(sines(side**2, width).double(), oracle.sines(side, width), **CLOSE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.inference_mode()
def test_a_padded_batch_with_pictures_equals_the_oracle_row_by_row(model, processor, plain, attention):
    """The rows are on both sides of 24 tokens, where rotations grow; none is changed by its padding."""
    model.set_attn_implementation(attention)
    batch = processor(text=TEXTS, images=SHOWN, return_tensors="pt", padding=True)
    logits = model(**batch).logits
    for found, text, shown in zip(logits, TEXTS, SHOWN, strict=True):
        ids, pictures = row(processor, text, shown)
        expected = plain.logits(ids, pictures)
        torch.testing.assert_close(found[-len(ids) :].double(), expected, **CLOSE)


@pytest.mark.parametrize("tokens", [23, 24, 25, 48, 49, 97, 200])
@torch.inference_mode()
def test_rotations_and_queries_beyond_what_was_trained_equal_the_oracle(model, processor, plain, tokens):
    ids = long(processor, tokens)
    expected = plain.logits(ids, torch.zeros(0))
    torch.testing.assert_close(model(ids[None]).logits[0].double(), expected, **CLOSE)


@torch.inference_mode()
def test_beyond_2048_tokens_as_published_equals_the_oracle(folder, processor):
    """With the published `seq_length`, not a small one."""
    ids, config = long(processor, 2100), AutoConfig.from_pretrained(folder, seq_length=2048, num_hidden_layers=1)
    model = built(QWenLMHeadModel, config).eval()
    expected = oracle.QwenVL(model.state_dict(), config.to_dict()).logits(ids, torch.zeros(0))
    torch.testing.assert_close(model(ids[None]).logits[0].double(), expected, **CLOSE)
    model.config.use_dynamic_ntk = False
    assert (model(ids[None]).logits[0].double() - expected).abs().max() > 1e-3, "the growing base shows"


@pytest.mark.parametrize(
    ("tokens", "growth"), [(1, 1), (2048, 1), (2049, 3), (4096, 3), (4097, 7), (8192, 7), (8193, 15)]
)
def test_the_base_grows_with_each_doubling(tokens, growth):
    assert ntk_growth(torch.tensor([tokens]), 2048).tolist() == [growth]


@pytest.mark.parametrize("rows", [slice(3), slice(2, 3)])
@pytest.mark.parametrize("told", [True, False])
@torch.inference_mode()
def test_generation_keeps_the_base_of_its_prompt(model, processor, plain, told, rows):
    """As the published code with its cache; rows pass 24 tokens while they are generated, padded or alone."""
    texts, nested = TEXTS[rows], SHOWN[rows]
    batch = processor(text=texts, images=nested, return_tensors="pt", padding=True)
    inputs = {name: value for name, value in batch.items() if told or name != "prompt_length"}
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    found = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    start = batch["input_ids"].shape[1]
    for i, (text, shown) in enumerate(zip(texts, nested, strict=True)):
        ids, pictures = row(processor, text, shown)
        whole = torch.cat([ids, found.sequences[i, start:-1]])
        expected = plain.logits(whole, pictures, prompt=len(ids))[len(ids) - 1 :]
        torch.testing.assert_close(torch.stack([step[i] for step in found.logits]).double(), expected, **CLOSE)


@torch.inference_mode()
def test_a_cache_filled_in_pieces_equals_one_forward(model, processor):
    ids = long(processor, 60)[None]
    told = {"prompt_length": torch.tensor([60])}
    cache, pieces = None, []
    for piece in ids.split([30, 1, 29], dim=1):
        out = model(piece, past_key_values=cache, use_cache=True, **told)
        cache, pieces = out.past_key_values, [*pieces, out.logits]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids).logits, **CLOSE)


def test_the_processor_writes_what_the_model_reads(processor, model):
    batch = processor(text=TEXTS, images=SHOWN, return_tensors="pt", padding=True)
    pads = (batch["input_ids"] == model.config.image_token_id).sum(1)
    assert (pads.tolist(), len(batch["pixel_values"])) == ([4, 12, 0], 4)
    assert batch["prompt_length"].tolist() == batch["attention_mask"].sum(1).tolist()
    assert batch["input_ids"][2, 0] == processor.tokenizer.pad_token_id, "padded on the left"
    assert processor.tokenizer.pad_token == processor.tokenizer.eos_token == "<|endoftext|>"


def test_pictures_are_resized_to_a_square_and_normalised_as_clip_does(processor):
    _, pictures = row(processor, TEXTS[0], SHOWN[0])
    small = np.asarray(PICTURES[0].resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = torch.tensor((small - mean) / deviation).permute(2, 0, 1)
    torch.testing.assert_close(pictures[0].double(), expected, **CLOSE)


def test_a_text_with_another_number_of_pictures_is_refused(processor):
    with pytest.raises(ValueError, match=r"\[2\] pictures for texts with other numbers of <img></img>"):
        processor(text=["<img></img>x"], images=[PICTURES[:2]])


def test_places_that_lost_a_token_are_refused(model, processor):
    batch = processor(text=TEXTS[:1], images=SHOWN[:1], return_tensors="pt")
    batch["input_ids"][batch["input_ids"] == model.config.image_token_id] = 1
    with pytest.raises(ValueError, match="0 places of picture tokens for 4 features of pictures"):
        model(**batch)


def test_pictures_beyond_the_context_are_counted_in_one_sentence(tmp_path):
    """Six tokens each here, 258 in the published model."""
    write_qwen_vl(tmp_path, max_position_embeddings=40)
    template = TemplateConfig("", "<image>{question}: {answer}\n", "<image>{question}:", " {answer}")
    example = Example("q", (PICTURES[0].copy,), "cat", ("dog",))
    expected = (
        r"A prompt of 6 demonstrations and 7 pictures takes \d+ tokens .* holds 40; lower method\.shots, .* to 2\."
    )
    with pytest.raises(StvError, match=expected):
        backbone(tmp_path).encode([make_prompt(template, example, [example] * 6)])


def test_text_without_a_vision_tower_is_told_from_qwen_vl(tmp_path):
    """Qwen-7B has the same type in its config.json."""
    write_qwen_vl(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["visual"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        StvError, match=r"no section `visual`, so it is Qwen \(v1\) for text only; take a Qwen-VL, or Qwen2"
    ):
        backbone(tmp_path)


def test_auto_classes_load_it_without_its_code(folder):
    """Though the folder names code of its own, which is not there."""
    assert "auto_map" in (folder / "config.json").read_text()
    loaded = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert type(loaded) is QWenLMHeadModel and tokenizer.is_fast


def backbone(folder: Path, **options: Any) -> Backbone:
    return load_backbone(ModelConfig(str(folder), dtype="float32", **options))


def test_an_answer_of_a_chat_ends_with_its_turn(folder):
    special = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids
    ends = [special(token) for token in ("<|endoftext|>", "<|im_end|>", "<|im_start|>")]
    assert backbone(folder, chat=True).model.generation_config.eos_token_id == ends
    assert backbone(folder).model.generation_config.eos_token_id == ends[0]
    told = make_prompt(TemplateConfig("", "{question} {answer}", "{question}"), Example("q", (), "Which?", ("cat",)))
    taught = [backbone(folder, chat=chat).encode_answer(told, ended=True)[-1].item() for chat in (True, False)]
    assert taught == [ends[1], ends[0]], "as the template ends a turn, of all at which generation stops"


def test_turns_are_those_of_qwen_vl_chat(processor):
    """A system turn, pictures that are numbered through the conversation, nothing behind the last colon."""
    content = [{"type": "image"}, {"type": "text", "text": "Which?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "cat"}]
    messages.append({"role": "user", "content": content})
    assert processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPicture 1: <img></img>\nWhich?<|im_end|>\n<|im_start|>assistant\ncat<|im_end|>\n"
        "<|im_start|>user\nPicture 2: <img></img>\nWhich?<|im_end|>\n<|im_start|>assistant\n"
    )
