"""The real drawings of the testbed's training: emoji of the npm package `emoji-datasource-google`, of four kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stv_exp.data.drawing import IMAGE_SIZE
from stv_exp.data.files import expanded, parse_json
from stv_exp.data.images import open_image
from stv_exp.data.languages import KINDS
from stv_exp.errors import StvError

_KIND_OF = {"animal": "animals", "food": "food", "drink": "food", "place": "town"}  # by a subcategory's first word


def emoji(folder: str) -> dict[str, list[Path]]:
    """Pictures by kind below the unpacked package; raises `StvError` that says what to install."""
    root = expanded(folder)
    if not (root / "emoji.json").is_file():
        raise StvError(
            f"pretrain.emoji={folder} has no emoji.json; unpack the npm package emoji-datasource-google there "
            "(npm pack emoji-datasource-google@16.0.0)."
        )
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for entry in parse_json(root / "emoji.json"):
        kind = "symbols" if entry["category"] == "Symbols" else _KIND_OF.get(entry["subcategory"].split("-")[0])
        if kind and entry["has_img_google"]:
            found[kind].append(root / "img" / "google" / "64" / entry["image"])
    return found


def drawings(folder: str, n: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`n` varied emoji `[n, 64, 64, 3]` on white and the index of their kinds `[n]`, each kind equally often."""
    sources = [[open_image(str(path)) for path in paths] for paths in emoji(folder).values()]
    kinds = np.arange(n) % len(sources)
    images = [_varied(sources[kind][rng.integers(len(sources[kind]))], rng) for kind in kinds]
    return np.stack(images), kinds


def _varied(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirrored, turned by up to 20 degrees, stretched, moved and shaded at random."""
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True, fillcolor="white")
    width, height = (int(edge) for edge in rng.uniform(0.65, 1.15, 2) * IMAGE_SIZE)
    left, top = (int(rng.uniform(min(0, free), max(0, free))) for free in (IMAGE_SIZE - width, IMAGE_SIZE - height))
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    shaded = np.asarray(canvas) * rng.uniform(0.85, 1.0, 3) + rng.normal(0, 4, (IMAGE_SIZE, IMAGE_SIZE, 3))
    return shaded.clip(0, 255).astype(np.uint8)
