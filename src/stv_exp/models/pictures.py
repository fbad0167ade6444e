"""What the decoder reads of a picture: computed once a picture, in however many prompts it stands.

A picture is shown many times: as a demonstration of many queries, and as a query in the scan, in every epoch of a
training and in its teacher's prompts. Most vision-language models of transformers take a picture's features in its
stead (`mm_encoder_outputs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from stv_exp.models.families.base import Family
from stv_exp.models.recent import Recent, half_of_what_is_free

TAKEN = "mm_encoder_outputs"  # the input for features
_PIXELS = ("pixel_values", "pixel_attention_mask")  # the inputs that they stand for
_SAME = 0.99  # cosine: half precision rounds by batch
_MOST = 4 * 2**30  # bytes: what is free on a node may be more than its job is given


@dataclass(frozen=True)
class Seen:
    """Features of one picture in the order of its places: what is read at first, and at further layers (deepstack)."""

    pooled: Tensor  # [places, F]
    deeper: tuple[Tensor, ...] = ()  # of [places, F]

    @property
    def n_bytes(self) -> int:
        return sum(t.nbytes for t in (self.pooled, *self.deeper))


class Pictures:
    """Features by what a picture shows, as many as fit in 4 GiB and in half of the free memory, on the CPU."""

    def __init__(self, model: Any, processor: Any, family: Family) -> None:
        self.model = model
        self.processor = processor
        self.family = family
        self.recent: Recent[Seen] = Recent(min(_MOST, half_of_what_is_free(torch.device("cpu"))))
        self._made: type[Any] = dict  # what the model makes of pictures,
        self._in_one = False  # all of them in one tensor or a tensor each

    @property
    def readable(self) -> bool:
        """Whether the model tells what its decoder reads of a picture, and where."""
        return hasattr(self.model, "get_image_features") and hasattr(self.model.config, "image_token_id")

    @cached_property
    def shareable(self) -> bool:
        """Whether the decoder takes features, and a picture has the same beside another as alone.

        LLaVA-OneVision, for one, cuts a picture otherwise where it is not alone.
        """
        if not self.readable or TAKEN not in inspect.signature(self.model.forward).parameters:
            return False
        two = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green")]
        try:
            (apart, places), (beside, _) = self._encoded([[one] for one in two]), self._encoded([two])
        except Exception:  # whatever the code of a family unknown here runs into: its pixels are what it takes
            return False
        alone, together = _flat(apart.pooler_output), _flat(beside.pooler_output)
        if not len(alone) == len(together) == sum(places):
            return False
        return torch.cosine_similarity(alone.float(), together.float(), dim=-1).min().item() > _SAME

    def instead(self, batch: Mapping[str, Any], pictures: Sequence[Image.Image]) -> dict[str, Any]:
        """A batch's inputs with the features of its `pictures`, in the order of their places, for their pixels."""
        seen = self.features(pictures)
        pooled = [one.pooled.to(self.model.device) for one in seen]
        deeper = [[t.to(self.model.device) for t in layer] for layer in zip(*(one.deeper for one in seen), strict=True)]
        found: dict[str, Any] = {"pooler_output": torch.cat(pooled) if self._in_one else pooled}
        found |= {"deepstack_features": deeper} if deeper else {}
        kept = {name: value for name, value in batch.items() if name not in _PIXELS}
        return {**kept, TAKEN: {"image": self._made(**found)}}

    def features(self, pictures: Sequence[Image.Image]) -> list[Seen]:
        """Of each picture; those that are not kept are computed in one batch."""
        keys = [_key(picture) for picture in pictures]
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self.recent}
        found = {key: self.recent[key] for key in keys if key not in missing}
        if missing:
            found |= zip(missing, self._seen([*missing.values()]), strict=True)
        self.recent.keep(found)
        return [found[key] for key in keys]

    def _seen(self, pictures: Sequence[Image.Image]) -> list[Seen]:
        output, places = self._encoded([[picture] for picture in pictures])
        layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
        # Copies: a slice would keep the whole batch in memory for as long as one of its pictures is kept.
        split = [[part.clone() for part in _flat(layer).cpu().split(places)] for layer in layers]
        return [Seen(pooled, tuple(deeper)) for pooled, *deeper in zip(*split, strict=True)]

    @torch.inference_mode(False)  # trainings read what a scan has computed
    @torch.no_grad()
    def _encoded(self, texts: Sequence[Sequence[Image.Image]]) -> tuple[Any, list[int]]:
        """What the model makes of texts of nothing but pictures, and how many places each text has for them."""
        written = [self.family.image * len(pictures) for pictures in texts]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt", **self.family.image_options}
        inputs = self.processor(text=written, images=[list(pictures) for pictures in texts], **options)
        encode, inputs = self.model.get_image_features, inputs.to(self.model.device)
        output = encode(**{key: inputs[key] for key in inspect.signature(encode).parameters if key in inputs})
        self._made, self._in_one = type(output), isinstance(output.pooler_output, Tensor)
        return output, (inputs["input_ids"] == self.model.config.image_token_id).sum(1).tolist()


def _flat(features: Any) -> Tensor:
    """One row a place, of one tensor or of one a picture, by family."""
    parts = [features] if isinstance(features, Tensor) else features
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def _key(picture: Image.Image) -> str:
    exact = picture if picture.mode == "RGB" else picture.convert("RGBA")
    return blake2b(f"{exact.mode} {exact.size}".encode() + exact.tobytes(), digest_size=16).hexdigest()
