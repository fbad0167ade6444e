"""Draws the testbed's images: one shape with a colour, a shape, a texture, a position and a size.

Everything is vectorised over the batch (signed distances on a pixel grid), because pretraining draws
hundreds of images a step and must not wait for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
IMAGE_SIZE = 64
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "green", "blue", "yellow"),
    "shape": ("circle", "square", "triangle", "cross"),
    "texture": ("solid", "striped", "dotted", "checkered"),
    "position": ("northwest", "northeast", "southwest", "southeast"),
    "size": ("small", "medium", "large"),
}
FAMILIES = ("plain", "shifted")

_PALETTES = {
    "plain": [(220, 40, 40), (40, 190, 60), (50, 80, 230), (235, 215, 50)],
    "shifted": [(150, 20, 50), (130, 220, 130), (90, 150, 250), (190, 160, 20)],
}
_RADIUS = np.array([10.0, 14.4, 19.6])
_CENTRE = np.array([[20, 20], [44, 20], [20, 44], [44, 44]])


@dataclass(frozen=True)
class Attributes:
    """Value index of each attribute, one row an image: int64 `[N, 5]` in the order of `ATTRIBUTES`."""

    values: NDArray[np.int64]

    @classmethod
    def sample(cls, n: int, rng: np.random.Generator) -> Attributes:
        """Draw `n` images' attributes, all independent and uniform."""
        return cls(np.stack([rng.integers(len(v), size=n) for v in ATTRIBUTES.values()], axis=1))

    def of(self, attribute: str) -> NDArray[np.int64]:
        """Value indices `[N]` of one attribute."""
        return self.values[:, list(ATTRIBUTES).index(attribute)]


def draw(attributes: Attributes, rng: np.random.Generator, family: str = "plain") -> NDArray[np.uint8]:
    """Render images `[N, 64, 64, 3]`; `family="shifted"` has unseen shades, gradients and pixel noise."""
    n = len(attributes.values)
    dx, dy, radius = _offsets(attributes, rng)
    inside = _edge(_distance(attributes.of("shape"), dx, dy, radius))[..., None]
    ink = _ink(attributes.of("colour"), n, rng, family)
    light = _texture(attributes.of("texture"))[..., None]
    image = inside * ink * light + (1 - inside) * _background(n, rng, family)
    image += rng.normal(0, 4 if family == "plain" else 14, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def _offsets(attributes: Attributes, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Distance of each pixel from the jittered centre, `[N, 64, 64]` twice, and the radius `[N, 1, 1]`."""
    n = len(attributes.values)
    centre = _CENTRE[attributes.of("position")] + rng.uniform(-3, 3, (n, 2))
    radius = _RADIUS[attributes.of("size")] + rng.uniform(-1, 1, n)
    grid = np.arange(IMAGE_SIZE) + 0.5
    dx = grid[None, None, :] - centre[:, 0, None, None] + np.zeros((1, IMAGE_SIZE, 1))
    dy = grid[None, :, None] - centre[:, 1, None, None] + np.zeros((1, 1, IMAGE_SIZE))
    return dx, dy, radius[:, None, None]


def _distance(shape: Array, dx: Array, dy: Array, r: Array) -> Array:
    """Signed distance to each image's outline in pixels (negative inside), `[N, 64, 64]`."""
    ax, ay = np.abs(dx), np.abs(dy)
    circle = np.hypot(dx, dy) - r
    square = np.maximum(ax, ay) - 0.88 * r
    triangle = np.maximum(0.87 * ax + 0.5 * dy, -dy - 0.35 * r) - 0.5 * r
    cross = np.minimum(np.maximum(ax - r, ay - 0.36 * r), np.maximum(ay - r, ax - 0.36 * r))
    return np.choose(shape[:, None, None], [circle, square, triangle, cross])


def _edge(distance: Array) -> Array:
    """Anti-aliased coverage in 0-1."""
    return np.clip(0.5 - distance, 0, 1)


def _texture(texture: Array) -> Array:
    """Brightness factor `[N, 64, 64]` of each image's pattern, 8 pixels a period on the picture's own grid."""
    on = np.arange(IMAGE_SIZE) // 4 % 2
    column, row = on[None, :], on[:, None]
    solid = np.ones((IMAGE_SIZE, IMAGE_SIZE))
    striped = np.where(row + 0 * column, 0.35, 1.0)
    dotted = np.where(row & column, 0.15, 1.0)
    checkered = np.where(row ^ column, 0.35, 1.0)
    return np.stack([solid, striped, dotted, checkered])[texture]


def _ink(colour: Array, n: int, rng: np.random.Generator, family: str) -> Array:
    palette = np.array(_PALETTES[family], dtype=float)
    return (palette[colour] + rng.normal(0, 10, (n, 3)))[:, None, None, :]


def _background(n: int, rng: np.random.Generator, family: str) -> Array:
    base = rng.uniform(10, 60, (n, 1, 1, 3) if family == "shifted" else (n, 1, 1, 1))
    if family == "plain":
        return base
    ramp = np.linspace(0, 1, IMAGE_SIZE)[None, :, None, None]
    return base + 70 * ramp * rng.uniform(0, 1, (n, 1, 1, 3))
