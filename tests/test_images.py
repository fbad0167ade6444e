"""Pictures of every kind are decoded to RGB within bounds, and broken ones are refused by name."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from stv_exp.data import images
from stv_exp.data.images import open_image, picture, readable
from stv_exp.data.task import Example
from stv_exp.errors import StvError
from tests import official_vqa

PEAK = """
import resource, sys
def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
"""
OPEN = """
from stv_exp.data.images import picture
before = megabytes()
image = picture(sys.argv[1])()
print(*image.size, megabytes() - before)
"""


def numbers_of(code: str, *arguments: object) -> list[float]:
    """Numbers that a fresh process prints; behind a shell, since a child of this one inherits its peak of memory."""
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-W", "error", "-c", PEAK + code]
    done = subprocess.run([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    images.pictures.clear()


def test_broken_pictures_of_any_handle_are_left_out(tmp_path):
    def handle():
        raise StvError("gone")

    good, bad = (Example(name, (load,), "?", ("x",)) for name, load in (("a", lambda: None), ("b", handle)))
    assert readable([good, bad], True) == (good,)
    assert readable([good, bad], False) == (good, bad)


def _modes() -> dict[str, Image.Image]:
    red = Image.new("RGB", (8, 6), (200, 30, 40))
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    palette = red.quantize(4)
    palette.info["transparency"] = bytes([0, 0, 0, 0])
    sixteen = Image.fromarray(np.full((6, 8), 128 * 256, np.uint16))
    return {
        "grey.png": red.convert("L"),
        "bits.png": Image.new("1", (8, 6), 1),
        "alpha.png": clear,
        "palette.png": palette,
        "sixteen.png": sixteen,
        "sixteen.tif": sixteen,
        "ink.jpg": red.convert("CMYK"),
        "colours.tif": red.convert("LAB"),
        "still.webp": red,
        "still.bmp": red,
    }


@pytest.mark.parametrize("name", _modes())
def test_every_kind_of_picture_becomes_rgb_without_a_warning(name, tmp_path):
    source = _modes()[name]
    source.save(tmp_path / name)
    image = open_image(str(tmp_path / name))
    assert image.mode == "RGB" and image.size == (8, 6)
    expected = {"alpha.png": 255, "palette.png": 255, "bits.png": 255, "sixteen.png": 128, "sixteen.tif": 128}
    if name in expected:
        assert image.getpixel((3, 3)) == (expected[name],) * 3


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp", "pages.tif"])
def test_an_animated_picture_is_its_first_frame(name, tmp_path):
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    red.save(tmp_path / name, save_all=True, append_images=[blue, blue])
    r, _, b = open_image(str(tmp_path / name)).getpixel((3, 3))
    assert r > 200 > 50 > b


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.jpg", exif=exif)
    turned = open_image(str(tmp_path / "turned.jpg"))
    assert turned.size == (20, 40) and turned.getpixel((10, 5))[0] > 200 > turned.getpixel((10, 35))[0]


@pytest.mark.parametrize("name", ["dot.png", "dot.jpg", "dot.gif"])
def test_a_picture_of_one_pixel_is_a_picture(name, tmp_path):
    Image.new("RGB", (1, 1), "white").save(tmp_path / name)
    assert picture(tmp_path / name)().size == (1, 1)


@pytest.mark.parametrize(
    ("name", "size", "limit"),
    [("wide.jpg", (20_000, 10_000), 250), ("wide.png", (20_000, 2_000), 400), ("thin.jpg", (20_000, 1), 50)],
)
def test_a_picture_of_20000_pixels_takes_little_memory(name, size, limit, tmp_path):
    Image.new("L", size, 70).save(tmp_path / name)
    width, height, megabytes = numbers_of(OPEN, tmp_path / name)
    assert width == 4096 and abs(height - 4096 * size[1] / size[0]) <= 1
    assert megabytes < limit


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(StvError, match=r"bomb\.png has 20000 x 20000 pixels"):
        open_image(str(tmp_path / "bomb.png"))
    assert Image.MAX_IMAGE_PIXELS, "Pillow's own limit is back"


def test_a_handle_can_be_pickled_and_decodes_once(tmp_path, monkeypatch):
    official_vqa.picture(tmp_path / "a.jpg", 0)
    load = pickle.loads(pickle.dumps(picture(tmp_path / "a.jpg")))
    assert load() is load() is picture(str(tmp_path / "a.jpg"))()


def test_decoded_pictures_never_exceed_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(images.pictures, "_Cache__maxsize", 10_000)  # three of 32 x 24
    for i in range(8):
        official_vqa.picture(tmp_path / f"{i}.jpg", i)
    Image.new("RGB", (100, 100)).save(tmp_path / "large.png")
    loads = [picture(tmp_path / name) for name in (*(f"{i}.jpg" for i in range(8)), "large.png")]
    for load in loads * 2:
        load()
        assert 0 < images.pictures.currsize <= 10_000
    held = {i for i in range(8) if str(tmp_path / f"{i}.jpg") in images.pictures}
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda load: load().size, loads * 4))
    assert (
        decoded[:9] == [(32, 24)] * 8 + [(100, 100)] and images.pictures.currsize <= 10_000 and Image.MAX_IMAGE_PIXELS
    )
    assert held == {5, 6, 7} and str(tmp_path / "large.png") not in images.pictures
