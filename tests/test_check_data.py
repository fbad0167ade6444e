"""`check_data` tells what a dataset holds, shows its first examples, and says what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stv_exp import jobs
from stv_exp.check_data import SHOWN, check_data
from stv_exp.config import Config, DatasetConfig, FieldsConfig
from stv_exp.data import tuxpaint
from stv_exp.data.images import open_image
from stv_exp.data.task import Example
from stv_exp.errors import StvError
from stv_exp.report.sheet import COLUMNS, WIDTH, image_sheet


def with_dataset(config: Config, name: str, task: str, **changes: object) -> Config:
    dataset = DatasetConfig(name=name, loader=f"stv_exp.data.{name}", task=task, support=20, eval=10)
    return replace(config, dataset=replace(dataset, **changes))


@pytest.fixture
def stamps(tmp_path) -> Path:
    """30 pictures in the layout of Tux Paint's stamps, a third of them in each of three categories."""
    for category in ("a", "b", "c"):
        (tmp_path / "stamps" / category).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20 + i, 20)).save(tmp_path / f"stamps/{category}/{i}.png")
            (tmp_path / f"stamps/{category}/{i}.txt").write_text("A thing [bold] 何.\n", encoding="utf-8")
    return tmp_path / "stamps"


@pytest.mark.parametrize(
    ("name", "task", "counts", "answers"),
    [
        ("shapes", "position-shared-0", ("support", "20", "64x64"), "4 labels"),
        ("words", "antonym", ("support", "20", "0", "-"), "open answers"),
        ("easy_vqa", "easy-colour-0", ("support", "20", "64x64"), "8 labels"),
    ],
)
def test_counts_and_answers_are_listed_and_the_sheet_written(config, capsys, name, task, counts, answers):
    path = check_data(with_dataset(config, name, task))
    said = capsys.readouterr().out
    assert path == Path(config.outputs, f"check_data/{name}-{task}.png")
    assert f"{name}/{task}" in said and answers in said and "Nothing is missing." in said
    row = next(line for line in said.splitlines() if "support" in line and "20" in line)
    assert all(count in row for count in counts)
    assert open_image(str(path)).width == COLUMNS * WIDTH


def test_the_job_is_started_by_its_name(config, capsys):
    assert jobs.start(replace(config, job="check_data"), []) is None
    assert "shapes/position-shared-0" in capsys.readouterr().out
    assert not Path(config.outputs, "runs").exists()


def test_shares_of_answers_are_those_of_each_split(config, capsys, stamps):
    config = with_dataset(config, "tuxpaint", "name", root=str(stamps))
    check_data(config)
    said = capsys.readouterr().out
    assert "thing [bold] 何" in said and "20 (100%)" in said and "10 (100%)" in said
    assert "20x20 to 29x20" in said


def test_validation_is_looked_at_too(config, capsys, stamps):
    config = with_dataset(config, "tuxpaint", "category", root=str(stamps))
    config = replace(config, dataset=replace(config.dataset, validation=5))
    check_data(config)
    counts = {row[1]: row[2] for line in capsys.readouterr().out.splitlines() if len(row := line.split("│")) > 3}
    assert {name.strip(): int(n) for name, n in counts.items() if n.strip().isdigit()} == {
        "support": 15,
        "validation": 5,
        "eval": 10,
    }


@pytest.mark.parametrize("all_of_them", [False, True])
def test_broken_pictures_are_counted_and_refused_by_name(config, capsys, stamps, all_of_them):
    for path in stamps.glob("*/*.png" if all_of_them else "a/3.png"):
        path.write_bytes(b"")
    config = with_dataset(config, "tuxpaint", "category", root=str(stamps))
    with pytest.raises(StvError, match=r"of 30 examples of tuxpaint/category are broken, the first .*\.png cannot be"):
        check_data(config)
    said = capsys.readouterr().out
    assert "Nothing is missing" not in said and said.count("- Example ") == (30 if all_of_them else 1)
    assert Path(config.outputs, "check_data/tuxpaint-category.png").is_file() is not all_of_them


def test_an_empty_folder_is_told_what_to_install(config, tmp_path):
    with pytest.raises(StvError, match="install the Debian package tuxpaint-stamps-default"):
        check_data(with_dataset(config, "tuxpaint", "category", root=str(tmp_path)))


def test_a_dataset_of_the_hubs_kind_is_checked_too(config, capsys, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"question": ["?"] * 30, "label": ["x", "y", "z"] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    config = with_dataset(config, "hub", "a/b", loader="stv_exp.data.columns", root=str(tmp_path / "saved"))
    fields = FieldsConfig(image="", question="question")
    path = check_data(replace(config, dataset=replace(config.dataset, fields=fields, eval_split="train")))
    assert path.name == "hub-a-b.png" and "open answers" in capsys.readouterr().out


def test_the_sheet_shows_every_picture_and_wraps_its_text():
    pictures = tuple(lambda colour=colour: Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    examples = [Example(str(i), pictures, "why? " * 40, ("é", "何", "é")) for i in range(COLUMNS + 1)]
    sheet = image_sheet(examples)
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}
    assert {(255, 0, 0), (0, 0, 255)} <= colours
    assert sheet.height > image_sheet(examples[:COLUMNS]).height > 200


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (3, 4000)])
def test_a_picture_of_any_shape_fits_its_cell(size):
    example = Example("x", (lambda: Image.new("RGB", size),), "?", ("a",))
    assert image_sheet([example]).width == COLUMNS * WIDTH


@pytest.mark.skipif(not Path(tuxpaint.INSTALLED).is_dir(), reason="needs tuxpaint-stamps-default")
def test_the_installed_stamps_are_whole(config, capsys):
    check_data(with_dataset(config, "tuxpaint", "name", support=SHOWN, eval=SHOWN))
    assert "Nothing is missing." in capsys.readouterr().out
