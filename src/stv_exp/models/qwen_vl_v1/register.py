"""Makes transformers' Auto classes know Qwen-VL (v1)."""

from __future__ import annotations

from functools import cache

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from stv_exp.models.qwen_vl_v1.config import QWenConfig


@cache
def register() -> None:
    """Once a process. A folder that brings code of its own for this type is loaded without it."""
    from stv_exp.models.qwen_vl_v1.model import QWenLMHeadModel
    from stv_exp.models.qwen_vl_v1.processor import QWenVLProcessor
    from stv_exp.models.qwen_vl_v1.tokenizer import QWenTokenizer

    AutoConfig.register(QWenConfig.model_type, QWenConfig)
    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText):
        kind.register(QWenConfig, QWenLMHeadModel)
    AutoTokenizer.register(QWenConfig, tokenizer_class=QWenTokenizer)
    AutoProcessor.register(QWenConfig, QWenVLProcessor)
