"""A task: labelled support examples to learn from and held-out eval examples to be judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from stv_exp.errors import StvError


@dataclass(frozen=True)
class Example:
    """One question about images. `images` are opened when asked for, so that a split of any size is cheap."""

    id: str
    images: tuple[Callable[[], Image.Image], ...]
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """Disjoint `support` and `evaluation` splits, and the label words where they are a closed set."""

    name: str
    support: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, examples in (("support", self.support), ("eval", self.evaluation)):
            if not examples:
                raise StvError(f"The {split} split of {self.name} is empty; raise dataset.{split} or check the data.")
            if len({e.id for e in examples}) < len(examples):
                raise StvError(f"{self.name} has an id twice in its {split} split; give each example an id of its own.")
        both = {e.id for e in self.support} & {e.id for e in self.evaluation}
        if both:
            raise StvError(f"{self.name} has {min(both)!r} in both support and eval; the splits must not touch.")


def open_image(path: str) -> Image.Image:
    """Decode one RGB image; raises `StvError` that names the file where it is missing or corrupt."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise StvError(f"Image {path} cannot be read ({error}); replace the file or remove its example.") from error
