"""The image sheet: examples as a reader can check them, each a picture above its question and answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from stv_exp.data.task import Example
from stv_exp.errors import printable

COLUMNS = 4
WIDTH, HEIGHT = 260, 190  # pixels of a cell and of its picture
_MARGIN, _LINE, _CHARACTERS, _MOST_LINES = 10, 17, 32, 6


def image_sheet(examples: Sequence[Example]) -> Image.Image:
    """RGB image of `COLUMNS` examples a row; without pictures where they have none. Decodes what it shows."""
    cells = [_cell(example) for example in examples]
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (COLUMNS * WIDTH, sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            sheet.paste(cell, (j * WIDTH, sum(heights[:i])))
    return sheet


def _cell(example: Example) -> Image.Image:
    lines = [(printable(example.id)[: 2 * _CHARACTERS], "#888888")]
    lines += [(line, "#444444") for line in _wrapped(example.question)]
    lines += [(line, "#000000") for line in _wrapped("→ " + " / ".join(dict.fromkeys(example.answers)))]
    top = _MARGIN + HEIGHT if example.images else _MARGIN
    cell = Image.new("RGB", (WIDTH, top + _LINE * len(lines) + _MARGIN), "white")
    pictures = example.pictures
    for i, picture in enumerate(pictures):
        width = (WIDTH - 2 * _MARGIN) // len(pictures)
        cell.paste(_fitted(picture, width), (_MARGIN + i * width, _MARGIN))
    draw = ImageDraw.Draw(cell)
    for i, (line, colour) in enumerate(lines):
        draw.text((_MARGIN, top + i * _LINE), line, fill=colour, font=_font())
    return cell


def _fitted(picture: Image.Image, width: int) -> Image.Image:
    """The picture as large as its place allows; small ones keep hard pixels."""
    scale = min(width / picture.width, (HEIGHT - _MARGIN) / picture.height)
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _wrapped(text: str) -> list[str]:
    # One character more than fits says that there is more; a text of a megabyte need not be wrapped for that.
    shown = " ".join(text[: _CHARACTERS * _MOST_LINES + 1].splitlines())
    return textwrap.wrap(printable(shown), _CHARACTERS, max_lines=_MOST_LINES, placeholder=" …")


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own font."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 13)
