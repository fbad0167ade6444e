"""Processors for images and text. Those of many families also read videos, for which alone they need torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoProcessor,
    AutoTokenizer,
    Idefics3Processor,
    PreTrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING


def sees_images(config: PreTrainedConfig) -> bool:
    """Whether transformers knows the architecture as one of images and text."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def load_processor(source: Path, config: PreTrainedConfig, options: dict[str, Any]) -> Any:
    """The processor of a vision-language model, without its video part; the tokenizer of a text-only one."""
    if not sees_images(config):
        return AutoTokenizer.from_pretrained(source, **options)
    kind: Any = PROCESSOR_MAPPING.get(type(config), AutoProcessor)
    if kind.__name__ == "SmolVLMProcessor":
        kind = Idefics3Processor  # the same tensors from images and text, without the packages that videos take
    if issubclass(kind, ProcessorMixin) and "video_processor" in kind.get_attributes():
        kind = without_video(kind)
    return kind.from_pretrained(source, **options)


def without_video(kind: Any) -> Any:
    """The processor class `kind` with None for its video processor, its third after those of images and text."""

    class WithoutVideo(kind):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
            return super().from_args_and_dict([*args, None], processor_dict, **kwargs)

    return WithoutVideo
