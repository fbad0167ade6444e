"""Pictures: decoded when asked for, as RGB, through one cache that is bounded in bytes."""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from stv_exp.errors import StvError

if TYPE_CHECKING:
    from stv_exp.data.task import Example

CACHE_BYTES = 256_000_000
LONGEST_EDGE = 4096  # pixels; no model looks at more
_BYTES_PER_PIXEL = 4  # Pillow's, for RGB too
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, struct.error)  # seen in decoders

log = logging.getLogger(__name__)
_opening = threading.Lock()


class Cache:
    """Decoded pictures by path, those used last, never more than `CACHE_BYTES` of them. Safe between threads."""

    def __init__(self) -> None:
        self.bytes = 0
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> Image.Image | None:
        """The picture, now the one used last; None where it is not held."""
        with self._lock:
            if path in self._pictures:
                self._pictures.move_to_end(path)
            return self._pictures.get(path)

    def keep(self, path: str, image: Image.Image) -> None:
        """Hold a picture in place of those not used for longest; one larger than the bound is not held."""
        size = _decoded_bytes(image)
        with self._lock:
            if path in self._pictures or size > CACHE_BYTES:
                return
            while self.bytes + size > CACHE_BYTES:
                self.bytes -= _decoded_bytes(self._pictures.popitem(last=False)[1])
            self._pictures[path] = image
            self.bytes += size

    def clear(self) -> None:
        """Hold nothing."""
        with self._lock:
            self._pictures.clear()
            self.bytes = 0


cache = Cache()


def picture(path: Path | str) -> Callable[[], Image.Image]:
    """A handle that opens `path` when called, as `open_image` does, and decodes it once while the cache holds it.

    The image is shared by all who ask for it: copy before drawing on it. The handle can be pickled.
    """
    return partial(_cached, str(path))


def open_image(path: str) -> Image.Image:
    """Decode one picture: RGB, upright, first frame, on white where transparent, longest edge at most 4096 pixels.

    Raises `StvError` that names the file where it is missing, corrupt, or too large for Pillow's bomb limit.
    """
    try:
        with _opened(path) as image:
            return _upright_rgb(image)
    except _DAMAGE as error:
        raise StvError(f"Image {path} cannot be read ({error}); replace the file or remove its example.") from error


def readable(examples: Sequence[Example], skip_broken: bool) -> tuple[Example, ...]:
    """With `skip_broken`, the examples whose pictures open, and one warning with the number left out; else all.

    Cheap: header and checksums are read, and only pictures that look cut short are decoded.
    """
    if not skip_broken:
        return tuple(examples)
    kept = tuple(e for e in examples if all(_opens(load) for load in e.images))
    if left_out := len(examples) - len(kept):
        log.warning("Left out %d of %d examples: their pictures are missing or corrupt.", left_out, len(examples))
    return kept


def _cached(path: str) -> Image.Image:
    image = cache.get(path)
    if image is None:
        image = open_image(path)
        cache.keep(path, image)
    return image


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The header alone. Pillow would judge the size before `draft` can lower it, so its limit is off meanwhile."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        image.draft(None, _bounded(image))  # a JPEG is decoded at 1/2, 1/4 or 1/8; other formats ignore it
        _refuse_bomb(path, image, limit)
        yield image


def _bounded(image: Image.Image) -> tuple[int, int]:
    shrink = LONGEST_EDGE / max(image.size)
    return max(1, int(image.width * shrink)), max(1, int(image.height * shrink))


def _refuse_bomb(path: str, image: Image.Image, limit: int | None) -> None:
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


def _decoded_bytes(image: Image.Image) -> int:
    return image.width * image.height * _BYTES_PER_PIXEL


def _opens(load: Callable[[], Image.Image]) -> bool:
    """Whether a picture can be had; handles of other makes are called."""
    try:
        if isinstance(load, partial) and load.func is _cached:
            _check(load.args[0])
        else:
            load()
    except (StvError, *_DAMAGE):
        return False
    return True


def _check(path: str) -> None:
    """Raise where the file is missing, no picture, or damaged."""
    with _opened(path) as image:
        image.verify()  # checksums where the format has them; a JPEG has none, but an end marker
        whole = image.format != "JPEG" or _ends_as_jpeg(path)
    if not whole:
        open_image(path)


def _ends_as_jpeg(path: str) -> bool:
    with Path(path).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1024))
        return file.read().rstrip(b"\0").endswith(b"\xff\xd9")
