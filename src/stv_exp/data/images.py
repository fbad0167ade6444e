"""Pictures: decoded when asked for, as RGB, through one cache that is bounded in bytes."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from cachetools import LRUCache, cached
from PIL import Image, ImageOps

from stv_exp.data.broken import left_out
from stv_exp.errors import StvError

if TYPE_CHECKING:
    from stv_exp.data.task import Example

CACHE_BYTES = 256_000_000
LONGEST_EDGE = 4096  # pixels; no model looks at more
# Each has one size, which its header tells before anything is decoded; others hold pictures of any size (ICNS, ICO), or
# start a program (EPS).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_BYTES_PER_PIXEL = 4  # Pillow's, for RGB too
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, struct.error)  # seen in decoders

_opening = threading.Lock()


def _decoded_bytes(image: Image.Image) -> int:
    return image.width * image.height * _BYTES_PER_PIXEL


pictures: LRUCache[str, Image.Image] = LRUCache(CACHE_BYTES, _decoded_bytes)  # decoded ones by name, those used last
once = partial(cached, pictures, lock=threading.Lock())  # decorates what decodes one: `key` makes its name


def picture(path: Path | str) -> Callable[[], Image.Image]:
    """A handle that opens `path` when called, as `open_image` does, and decodes it once while the cache holds it.

    The image is shared by all who ask for it: copy before drawing on it. The handle can be pickled.
    """
    return partial(_cached, str(path))


def open_image(path: str | BytesIO) -> Image.Image:
    """Decode one picture: RGB, upright, first frame, on white where transparent, longest edge at most 4096 pixels.

    Raises `StvError` that names the file where it is missing, corrupt, of none of `FORMATS`, or too large for Pillow's
    bomb limit.
    """
    return _decoded(path, LONGEST_EDGE)


def readable(examples: Sequence[Example], skip_broken: bool) -> tuple[Example, ...]:
    """With `skip_broken`, the examples whose pictures open, and one warning with those left out; else all.

    Every picture is decoded, a JPEG at an eighth of its size: what opens here opens later.
    """
    if not skip_broken:
        return tuple(examples)
    complaints = {e.id: complaint for e in examples if (complaint := _complaint(e))}
    left_out(list(complaints.values()), len(examples))
    return tuple(e for e in examples if e.id not in complaints)


@once(key=str)
def _cached(path: str) -> Image.Image:
    return open_image(path)


def _decoded(path: str | BytesIO, edge: int) -> Image.Image:
    """The picture, of which a JPEG is decoded no larger than it takes for `edge`; see `open_image`."""
    try:
        with _opened(path, edge) as image:
            return _upright_rgb(image)
    except _DAMAGE as error:
        raise StvError(f"Image {path} cannot be read ({error}); replace the file or remove its example.") from error


@contextmanager
def _opened(path: str | BytesIO, edge: int) -> Iterator[Image.Image]:
    """The header alone. Pillow would judge the size before `draft` can lower it, so its limit is off meanwhile."""
    if isinstance(path, str) and not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (raises what `open` would)
        raise OSError("it is no file")  # a pipe would wait for a writer for ever
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        image.draft(None, _bounded(image, edge))  # a JPEG is decoded at 1/2, 1/4 or 1/8; other formats ignore it
        _refuse_bomb(path, image, limit)
        yield image


@lru_cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _bounded(image: Image.Image, edge: int) -> tuple[int, int]:
    shrink = edge / max(image.size)
    return max(1, int(image.width * shrink)), max(1, int(image.height * shrink))


def _refuse_bomb(path: object, image: Image.Image, limit: int | None) -> None:
    """Pillow refuses twice its limit and warns before that; here what is below is shrunk, so no warning is due."""
    if limit and image.width * image.height > 2 * limit:
        raise StvError(
            f"Image {path} has {image.width} x {image.height} pixels, more than the {2 * limit} that are safe to open; "
            "make it smaller or remove its example."
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 and not scale
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE))  # before any copy in another mode: of a large picture there is one
    ImageOps.exif_transpose(image, in_place=True)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _complaint(example: Example) -> str:
    """Why an example's pictures cannot be had, empty where they can; handles of other makes are called."""
    try:
        for load in example.images:
            if isinstance(load, partial) and load.func is _cached:
                _decoded(load.args[0], 1)
            else:
                load()
    except (StvError, *_DAMAGE) as error:
        return f"Example {example.id}: {error}"
    return ""
