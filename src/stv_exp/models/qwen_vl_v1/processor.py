"""Pictures and texts to the inputs of Qwen-VL: 448 x 448 pixels, `<img>`, 256 places, `</img>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, CLIPImageProcessorPil, ProcessorMixin

from stv_exp.models.qwen_vl_v1.config import QUERIES, QWenConfig
from stv_exp.models.qwen_vl_v1.tokenizer import QWenTokenizer
from stv_exp.models.qwen_vl_v1.vocabulary import IMAGE_END, IMAGE_PAD, IMAGE_START

PLACE = IMAGE_START + IMAGE_END  # of a picture in a text, where the published tokenizer has its path in between


class QWenVLProcessor(ProcessorMixin):
    """Texts with `<img></img>` where a picture stands; what a picture becomes follows from the model's own config."""

    def __init__(
        self, image_processor: Any, tokenizer: Any, image_tokens: int = QUERIES, chat_template: str | None = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self.image_tokens = image_tokens

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        source = pretrained_model_name_or_path
        config = QWenConfig.from_pretrained(source, **kwargs)
        side = config.seen["image_size"]
        images = CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)
        return [images, QWenTokenizer.from_pretrained(source, **kwargs), config.image_tokens]

    def __call__(
        self, images: Sequence[Sequence[Any]] | None = None, text: str | Sequence[str] = "", **options: Any
    ) -> BatchFeature:
        """Inputs of `text`, and of `images`, nested by text; `options` are the tokenizer's.

        Raises `ValueError` where the pictures of a text and their places differ in number.
        """
        texts, kind = [text] if isinstance(text, str) else list(text), options.pop("return_tensors", None)
        nested = [list(of_text) for of_text in images] if images is not None else [[] for _ in texts]
        if [t.count(PLACE) for t in texts] != [len(of_text) for of_text in nested]:
            raise ValueError(f"{[len(of_text) for of_text in nested]} pictures for texts with other numbers of {PLACE}")
        written = IMAGE_START + IMAGE_PAD * self.image_tokens + IMAGE_END
        found = dict(self.tokenizer([t.replace(PLACE, written) for t in texts], **options))
        found["prompt_length"] = [sum(mask) for mask in found["attention_mask"]]
        if flat := [image for of_text in nested for image in of_text]:
            found |= self.image_processor(images=flat, return_tensors="np")
        return BatchFeature(found, tensor_type=kind)
