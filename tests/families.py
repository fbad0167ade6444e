"""Tiny random checkpoints of the supported model families, each a folder as a hub repository is.

`FAMILIES[name](folder)` writes it in well under a second. Heads are grouped, `head_dim` is not hidden / heads and
biases are not zero wherever a family's configuration has them: what a wrong reading of the heads would hide behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.family_processors import Bytes, Language, chatml, plain, turns, write_processor
from tests.family_weights import built
from tests.qwen_vl_checkpoint import write_qwen_vl
from tests.remote_decoder.configuration_remote import RemoteConfig
from tests.remote_decoder.modeling_remote import RemoteLMHeadModel

IMAGE, PATCH = 32, 8  # pixels
IMAGE_TOKENS = 4  # of one image, in the families where its size does not matter
PIXELS = {"image_mean": [0.2] * 3, "image_std": [0.25] * 3}  # the drawn images are dark
SQUARE = {"height": IMAGE, "width": IMAGE}
EDGE = {"longest_edge": IMAGE}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE,
    "patch_size": PATCH,
}
WINDOW = 8  # of the sliding layers: shorter than the prompts
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}

_MISTRAL = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12, "sliding_window": None}
_LLAMA = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 20, "attention_bias": True}
_QWEN2 = {"num_attention_heads": 4, "num_key_value_heads": 2}
_QWEN3 = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "attention_bias": True}
_GEMMA = {**_QWEN3, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
_MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_NEXT = {**_QWEN3, **_EXPERTS, **_LINEAR, "shared_expert_intermediate_size": 32, "num_hidden_layers": 5}
_NEXT |= {"layer_types": [f"{kind}_attention" for kind in ("linear", "full", "linear", "full", "full")]}
_LFM2 = {**_QWEN2, "num_hidden_layers": 5, "layer_types": ["conv", "full_attention", "full_attention", "conv"]}
_LFM2["layer_types"] = [*_LFM2["layer_types"], "full_attention"]

_IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
_QWEN_VISION = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_TEXT = {"eos": "<|im_end|>", "pad": "<|endoftext|>"}
_TURNS = ("<start_of_turn>", "<end_of_turn>")


def _text(tokenizer: PreTrainedTokenizerFast, model_type: str | None = None, **own: Any) -> dict[str, Any]:
    """A decoder's settings."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 2048}
    named = {"model_type": model_type} if model_type else {}
    return {**named, "vocab_size": len(tokenizer), **sizes, **_ids(tokenizer), **own}


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


def _save(
    folder: Path, model_class: str | type[PreTrainedModel], config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Build a model, of transformers where it is a name, and write it."""
    model = built(getattr(transformers, model_class) if isinstance(model_class, str) else model_class, config)
    for key, value in _ids(tokenizer).items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)


def _idefics2(folder: Path) -> None:
    language = Language(plain("<image>"), _IDEFICS[:3], bos="<s>")
    size = {"shortest_edge": IMAGE, "longest_edge": IMAGE}
    images = transformers.Idefics2ImageProcessorPil(do_image_splitting=True, size=size, **PIXELS)
    write_processor(folder, "Idefics2Processor", language, images, image_seq_len=IMAGE_TOKENS)
    tokenizer = language.tokenizer()
    perceiver = {"resampler_n_latents": IMAGE_TOKENS, "resampler_depth": 1, "resampler_n_heads": 4}
    config = transformers.Idefics2Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        text_config=_text(tokenizer, "mistral", **_MISTRAL),
        vision_config=VISION,
        perceiver_config={**perceiver, "hidden_size": 48, "resampler_head_dim": 12, "num_key_value_heads": 2},
    )
    _save(folder, "Idefics2ForConditionalGeneration", config, tokenizer)


def _idefics3(folder: Path, family: str = "Idefics3", video_class: str | None = None) -> None:
    """Idefics3 and SmolVLM differ in their processors only."""
    language = Language(plain("<image>"), _IDEFICS, bos="<s>")
    images = getattr(transformers, f"{family}ImageProcessorPil")(
        do_image_splitting=True, size=EDGE, max_image_size=EDGE, **PIXELS
    )
    write_processor(folder, f"{family}Processor", language, images, video_class, image_seq_len=IMAGE_TOKENS)
    tokenizer = language.tokenizer()
    config = getattr(transformers, f"{family}Config")(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        text_config=_text(tokenizer, "llama", **_LLAMA),
        vision_config=VISION,
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    _save(folder, f"{family}ForConditionalGeneration", config, tokenizer)


def _smolvlm(folder: Path) -> None:
    _idefics3(folder, "SmolVLM", "SmolVLMVideoProcessor")


def _qwen_vl(folder: Path, family: str, text: dict[str, Any], vision: dict[str, Any]) -> None:
    """An image has 4 to 16 tokens, by its size."""
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    language = Language(chatml(image), _QWEN_VISION, **_QWEN_TEXT)
    token = IMAGE_TOKENS * (2 * PATCH) ** 2
    size = {"shortest_edge": token, "longest_edge": 4 * token}
    images = transformers.Qwen2VLImageProcessorPil(patch_size=PATCH, size=size, **PIXELS)
    generation = "3" if family == "Qwen3VL" else "2"
    write_processor(folder, f"{family}Processor", language, images, f"Qwen{generation}VLVideoProcessor")
    tokenizer = language.tokenizer()
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    config = getattr(transformers, f"{family}Config")(
        text_config=_text(tokenizer, rope_parameters=MROPE, **text),
        vision_config={"depth": 3, "num_heads": 2, "patch_size": PATCH, **vision},
        **{f"{key}_token_id": tokenizer.convert_tokens_to_ids(token) for key, token in names.items()},
    )
    _save(folder, f"{family}ForConditionalGeneration", config, tokenizer)


def _qwen2_vl(folder: Path) -> None:
    _qwen_vl(folder, "Qwen2VL", {**_QWEN2, "hidden_size": 64}, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2})


def _qwen2_5_vl(folder: Path) -> None:
    windows = {"window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
    vision = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, **windows}
    _qwen_vl(folder, "Qwen2_5_VL", {**_QWEN2, "hidden_size": 64}, vision)


def _qwen3_vl(folder: Path) -> None:
    deep = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    _qwen_vl(folder, "Qwen3VL", _QWEN3, {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 48, **deep})


def _llava(folder: Path) -> None:
    language = Language(plain("<image>\n", closing=" "), ("<image>",), bos="<s>")
    edge = {"shortest_edge": IMAGE}
    images = transformers.CLIPImageProcessorPil(size=edge, crop_size=SQUARE, **PIXELS)
    strategy = {"vision_feature_select_strategy": "default"}
    write_processor(
        folder, "LlavaProcessor", language, images, patch_size=PATCH, num_additional_image_tokens=1, **strategy
    )
    tokenizer = language.tokenizer()
    config = transformers.LlavaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE // PATCH) ** 2,
        text_config=_text(tokenizer, "llama", **_LLAMA),
        vision_config={"model_type": "clip_vision_model", **VISION, "projection_dim": 32},
        **strategy,
    )
    _save(folder, "LlavaForConditionalGeneration", config, tokenizer)


def _llava_onevision(folder: Path) -> None:
    """One tile beside the whole image: the least that its images with tiles come in."""
    language = Language(chatml("<image>"), ("<image>", "<video>", "<|im_start|>"), **_QWEN_TEXT)
    grid = {"image_grid_pinpoints": [[IMAGE, IMAGE]]}
    images = transformers.LlavaOnevisionImageProcessorPil(size=SQUARE, **grid, **PIXELS)
    tokens = {"num_image_tokens": (IMAGE // PATCH) ** 2, "vision_feature_select_strategy": "full"}
    video = "LlavaOnevisionVideoProcessor"
    write_processor(folder, "LlavaOnevisionProcessor", language, images, video, **tokens)
    tokenizer = language.tokenizer()
    config = transformers.LlavaOnevisionConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        text_config=_text(tokenizer, "qwen2", **_QWEN2),
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        **grid,
    )
    _save(folder, "LlavaOnevisionForConditionalGeneration", config, tokenizer)


def _internvl(folder: Path) -> None:
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    special = ("<|im_start|>", "<video>")
    language = Language(chatml("<IMG_CONTEXT>\n"), special, {**named, "video_token": "<video>"}, **_QWEN_TEXT)
    images = transformers.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=12, **PIXELS)
    video = "InternVLVideoProcessor"
    write_processor(folder, "InternVLProcessor", language, images, video, image_seq_length=IMAGE_TOKENS)
    tokenizer = language.tokenizer()
    pixels = {"image_size": [IMAGE, IMAGE], "patch_size": [PATCH, PATCH], "layer_scale_init_value": 1.0}
    config = transformers.InternVLConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=IMAGE_TOKENS,
        text_config=_text(tokenizer, "qwen2", **_QWEN2, tie_word_embeddings=False),
        vision_config={**VISION, **pixels, "attention_bias": True},
        tie_word_embeddings=False,
    )
    _save(folder, "InternVLForConditionalGeneration", config, tokenizer)


def _gemma3(folder: Path) -> None:
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    language = Language(turns("<start_of_image>"), _TURNS, named, bos="<bos>", eos="<eos>")
    images = transformers.Gemma3ImageProcessorPil(size=SQUARE, **PIXELS)
    write_processor(folder, "Gemma3Processor", language, images, image_seq_length=IMAGE_TOKENS)
    tokenizer = language.tokenizer()
    indices = {"boi_token": "boi", "eoi_token": "eoi", "image_token": "image"}
    config = transformers.Gemma3Config(
        mm_tokens_per_image=IMAGE_TOKENS,
        text_config=_text(tokenizer, "gemma3_text", **_GEMMA, **_MIXED),
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        **{f"{short}_token_index": tokenizer.convert_tokens_to_ids(named[key]) for key, short in indices.items()},
    )
    _save(folder, "Gemma3ForConditionalGeneration", config, tokenizer)


def _mllama(folder: Path) -> None:
    """Cross-attention at layer 1 of 4; an image has 1 to 4 tiles, by its shape."""
    language = Language(chatml("<|image|>"), ("<|image|>", "<|python_tag|>", "<|im_start|>"), bos="<s>")
    images = transformers.MllamaImageProcessorPil(size=SQUARE, max_image_tiles=4, **PIXELS)
    write_processor(folder, "MllamaProcessor", language, images)
    tokenizer = language.tokenizer()
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    vision = {"intermediate_layers_indices": [0], "num_global_layers": 1, "vision_output_dim": 64, "attention_heads": 4}
    config = transformers.MllamaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
        text_config=_text(tokenizer, cross_attention_layers=[1], rope_parameters=rope, **heads),
        vision_config={name: size for name, size in VISION.items() if name != "num_attention_heads"} | vision,
    )
    _save(folder, "MllamaForConditionalGeneration", config, tokenizer)


def _decoder(name: str, language: Language, **own: Any) -> Callable[[Path], None]:
    """The writer of a family that reads text only; `name` is its model's class."""

    def write(folder: Path) -> None:
        tokenizer = language.tokenizer()
        tokenizer.save_pretrained(folder)
        model = getattr(transformers, name)
        _save(folder, name, model.config_class(**_text(tokenizer, **own)), tokenizer)

    return write


def _gpt2(folder: Path) -> None:
    tokenizer = Language(plain(closing="</s>\n")).tokenizer()
    tokenizer.save_pretrained(folder)
    sizes = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 1024, "vocab_size": len(tokenizer)}
    _save(folder, "GPT2LMHeadModel", transformers.GPT2Config(**sizes, **_ids(tokenizer)), tokenizer)


def _remote(folder: Path) -> None:
    """Loads with `trust_remote_code=True` only."""
    tokenizer = Language(**_QWEN_TEXT).tokenizer()
    tokenizer.save_pretrained(folder)
    code = Path(__file__).parent / "remote_decoder"
    for file in ("configuration_remote.py", "modeling_remote.py"):
        shutil.copy(code / file, folder)
    places = {
        "AutoConfig": "configuration_remote.RemoteConfig",
        "AutoModelForCausalLM": "modeling_remote.RemoteLMHeadModel",
    }
    heads = {"num_attention_heads": 4, "kv_channels": 16, "no_bias": False}
    _save(folder, RemoteLMHeadModel, RemoteConfig(**_text(tokenizer, **heads), auto_map=places), tokenizer)


VISION_FAMILIES: dict[str, Callable[[Path], None]] = {
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "qwen_vl_v1": write_qwen_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "mllama": _mllama,
}
TEXT_FAMILIES: dict[str, Callable[[Path], None]] = {
    "llama": _decoder("LlamaForCausalLM", Language(plain(closing="</s>\n"), bos="<s>"), **_LLAMA),
    "qwen2": _decoder("Qwen2ForCausalLM", Bytes(chatml(), _QWEN_VISION[:1], **_QWEN_TEXT), **_QWEN2),
    "qwen3": _decoder("Qwen3ForCausalLM", Language(chatml(), _QWEN_VISION[:1], **_QWEN_TEXT), **_QWEN3),
    "mistral": _decoder("MistralForCausalLM", Language(plain(closing="</s>\n"), bos="<s>"), **_MISTRAL),
    "gemma2": _decoder("Gemma2ForCausalLM", Language(turns(), _TURNS, bos="<bos>", eos="<eos>"), **_GEMMA, **_MIXED),
    "gemma3_text": _decoder(
        "Gemma3ForCausalLM", Language(turns(), _TURNS, bos="<bos>", eos="<eos>"), **_GEMMA, **_MIXED
    ),
    "qwen3_next": _decoder("Qwen3NextForCausalLM", Language(chatml(), _QWEN_VISION[:1], **_QWEN_TEXT), **_NEXT),
    "lfm2": _decoder("Lfm2ForCausalLM", Language(chatml(), _QWEN_VISION[:1], bos="<s>"), **_LFM2),
    "gpt2": _gpt2,
    "remote": _remote,
}
FAMILIES = {**VISION_FAMILIES, **TEXT_FAMILIES}
