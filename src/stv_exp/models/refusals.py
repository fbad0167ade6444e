"""What is said of prompts that a model cannot read: too long, of pictures that it does not take, or not one a place."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from stv_exp.data.prompts import IMAGE, Prompt
from stv_exp.errors import StvError


def check_images(name: str, sees: bool, prompt: Prompt, images: int) -> None:
    """Raise `StvError` where a prompt has pictures that the model does not see, or not one a placeholder."""
    if images and not sees:
        raise StvError(
            f"Query {prompt.query.id} has images, but {name} reads text only; choose a vision-language model."
        )
    if (places := prompt.text.count(IMAGE)) != images:
        raise StvError(
            f"The prompt of query {prompt.query.id} has {places} {IMAGE} placeholders for {images} images; "
            "make dataset.template and the examples' images agree."
        )


def refused(name: str, processor: Any, prompts: Sequence[Prompt], error: Exception) -> str:
    """The sentence for what a processor refuses: a picture of an example where it is that, else the prompts."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    for prompt in prompts if _takes(processor, Image.new("RGB", (64, 64))) else ():
        for example in (*prompt.demonstrations, prompt.query):
            for image in example.pictures:
                if not _takes(processor, image):
                    size = f"a picture of {example.id}, {image.width} x {image.height} pixels"
                    return f"The processor of {name} refuses {size} ({reason}); remove that example."
    names = ", ".join(prompt.query.id for prompt in prompts)
    return (
        f"The processor of {name} refuses the prompt of query {names} ({reason}); "
        "its family may write pictures otherwise than <image> (see models/families)."
    )


def _takes(processor: Any, image: Image.Image) -> bool:
    """Whether the processor can read a picture, apart from any text."""
    try:
        processor.image_processor(images=[[image]], return_tensors="pt")
    except Exception:
        return False
    return True


def too_long(name: str, prompt: Prompt, tokens: Callable[[Prompt], int], room: int, context: int) -> str:
    """The sentence for a prompt that does not fit in so many tokens with `room` for its answer, and what would."""
    shots = len(prompt.demonstrations)
    fit = bisect_right(range(shots), context - room, key=lambda n: tokens(prompt.first(n))) - 1
    pictures = f" and {len(prompt.images)} pictures" if prompt.images else ""
    return (
        f"A prompt of {shots} demonstrations{pictures} takes {tokens(prompt) + room} tokens with its answer, but "
        f"{name} holds {context}; {_advice(fit, context - tokens(prompt.first(0)))}."
    )


def _advice(fit: int, left: int) -> str:
    """What to lower: `fit` demonstrations would do, or, where none are too many, `left` tokens behind the query."""
    if fit >= 0:
        return f"lower method.shots, scan.shots or train.shots to {fit}"
    return f"lower dataset.max_new_tokens to {left}" if left > 0 else "not even the query fits: shorten it"
