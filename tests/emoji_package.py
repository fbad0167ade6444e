"""A few blots in the layout of the npm package `emoji-datasource-google`."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

ENTRIES = [
    ("Animals & Nature", "animal-bird"), ("Animals & Nature", "plant-flower"), ("Food & Drink", "food-fruit"),
    ("Food & Drink", "drink"), ("Symbols", "arrow"), ("Travel & Places", "place-building"),
]  # fmt: skip


def write(folder: Path) -> Path:
    """The package, unpacked into `folder`; its last picture is one that Google has not drawn."""
    pictures = folder / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    entries = []
    for i, (category, subcategory) in enumerate([*ENTRIES, ENTRIES[0]]):
        entries.append({
            "category": category, "subcategory": subcategory, "image": f"{i}.png", "has_img_google": i < len(ENTRIES)
        })  # fmt: skip
        Image.new("RGBA", (64, 64), (40 * i, 80, 120, 255)).save(pictures / f"{i}.png")
    (folder / "emoji.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
