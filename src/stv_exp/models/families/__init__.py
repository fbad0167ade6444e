"""What differs between model families, one small file each; `family_of` picks by the config's `model_type`."""

from __future__ import annotations

from typing import Any

from stv_exp.models.caches import is_recurrent
from stv_exp.models.families.base import Family
from stv_exp.models.families.gemma3 import Gemma3
from stv_exp.models.families.idefics import Idefics
from stv_exp.models.families.internvl import InternVL
from stv_exp.models.families.mllama import Mllama
from stv_exp.models.families.qwen_vl import QwenVL
from stv_exp.models.families.qwen_vl_v1 import QwenVLv1
from stv_exp.models.families.recurrent import Lfm2, Recurrent

_BY_TYPE: dict[str, type[Family]] = {
    "idefics2": Idefics,
    "idefics3": Idefics,
    "smolvlm": Idefics,
    "qwen": QwenVLv1,
    "qwen2_vl": QwenVL,
    "qwen2_5_vl": QwenVL,
    "qwen3_vl": QwenVL,
    "internvl": InternVL,
    "gemma3": Gemma3,
    "mllama": Mllama,
    "lfm2": Lfm2,
    "qwen3_next": Family,  # padding is zero to its projections, which have no bias
}


def family_of(model: Any) -> Family:
    """The quirks of a model; most have none but the `Family` defaults."""
    other = Recurrent if is_recurrent(model.config) else Family
    return _BY_TYPE.get(model.config.model_type, other)(model)
