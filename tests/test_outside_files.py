"""Whatever stands in a file from outside: one sentence names file, entry and key; broken examples can be left out."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from stv_exp.check_data import check_data
from stv_exp.config import Config, DatasetConfig, FieldsConfig, ModelConfig, TemplateConfig
from stv_exp.data import columns
from stv_exp.data.images import open_image, picture, readable
from stv_exp.data.loading import load_task
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.models.loading import load_backbone
from stv_exp.report.sheet import image_sheet
from tests import official_episodes, official_vqa
from tests.families import FAMILIES
from tests.test_episode_data import episode
from tests.test_episode_data import settings as episode_settings
from tests.test_vqa_data import settings

# As they stand in the file; `None`: the key is missing.
NO_TEXT = ("null", "3", "1.5", "NaN", "true", '["a"]', '[["a"]]', '{"a": 1}', '""', '" "', r'"\ud800"', None)
NO_PATH = (*NO_TEXT, '"../../x.jpg"', '"a/../../x.jpg"', '"/etc/x.jpg"', r'"a\u0000b.jpg"')
NO_ID = ("null", "1.5", "NaN", "true", "[1]", '{"a": 1}', '""', r'"\ud800"', None)
NO_NUMBER = (*NO_ID, '"3"', "-1")
NO_ANSWER = ("null", "NaN", "Infinity", "true", "[]", '""', '["a", null]', '[["a"]]', '[{"a": 1}]', r'["\ud800"]', None)
FILES = {
    "vqa_jsonl": {"train.jsonl": {"image": NO_PATH, "question": NO_TEXT, "answer": NO_ANSWER, "question_id": NO_ID}},
    "vizwiz": {"Annotations/train.json": {"image": NO_PATH, "question": NO_TEXT, "answers": NO_ANSWER}},
    "okvqa": {
        "OpenEnded_mscoco_train2014_questions.json": {
            "question_id": NO_ID,
            "image_id": NO_NUMBER,
            "question": NO_TEXT,
        },
        "mscoco_train2014_annotations.json": {"question_id": NO_ID, "answers": NO_ANSWER},
    },
    "flowers": {"mtv/flower_train.json": {"pos": NO_PATH, "query": NO_PATH, "neg_label": NO_TEXT}},
}
CASES = [(name, file, key) for name, found in FILES.items() for file, keys in found.items() for key in keys]


def dataset(name: str, root: Path) -> DatasetConfig:
    """Eight support entries in the layout of the official files; MTV's files for the flowers."""
    if name == "flowers":
        official_episodes.annotations(root / "mtv", official_episodes.flowers(root), rows=8)
        found = episode(episode_settings(name, root), annotations=str(root / "mtv"))
        return replace(found, support=7, eval=4)
    return settings(name, getattr(official_vqa, name)(root, 8), support=7, eval=4)


def load(config: DatasetConfig, **changes: object) -> Task:
    return load_task(Config(dataset=replace(config, **changes)))


def broken_at(path: Path, number: int, key: str, value: str | None) -> Callable[[], None]:
    """Writes `value` for a key of an entry; returns what takes it back."""
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    content = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    rows = content if isinstance(content, list) else next(v for v in content.values() if isinstance(v, list))
    if value is None:
        del rows[number - 1][key]
    else:
        rows[number - 1][key] = "@@@"
    new = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
    path.write_text(new.replace('"@@@"', value or ""))
    return lambda: path.write_text(text) and None


@pytest.mark.parametrize(("name", "file", "key"), CASES)
def test_an_odd_value_is_refused_by_file_entry_and_key_and_can_be_left_out(name, file, key, tmp_path, caplog):
    config = dataset(name, tmp_path)
    for value in FILES[name][file][key]:
        take_back = broken_at(tmp_path / file, 3, key, value)
        with pytest.raises(
            StvError, match=rf"^(Entry|Line) 3 of .*{Path(file).name} has (no |.* under )'{key}'"
        ) as error:
            load(config)
        assert str(error.value).count("\n") == 0 and len(str(error.value)) < 400
        caplog.clear()
        kept = load(config, skip_broken=True)
        assert len(kept.support) == 7, value
        assert "Left out 1 of 8 examples" in caplog.text and f"3 of {tmp_path / file} has" in caplog.text
        take_back()


@pytest.mark.parametrize("name", FILES)
def test_json_that_no_parser_takes_is_refused_by_file(name, tmp_path):
    config = dataset(name, tmp_path)
    file = tmp_path / next(iter(FILES[name]))
    for value, complaint in (("[" * 100_000 + "]" * 100_000, "too deep"), ("1" * 5_000, "4300 digits")):
        take_back = broken_at(file, 3, next(iter(FILES[name][next(iter(FILES[name]))])), value)
        with pytest.raises(StvError, match=rf"{file.name} is no JSON .*{complaint}"):
            load(config)
        take_back()


@pytest.mark.parametrize("row", ["null", "3", '"text"', "[]"])
def test_a_line_that_is_no_object_is_refused_by_number_and_can_be_left_out(row, tmp_path):
    config = dataset("vqa_jsonl", tmp_path)
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([row, *path.read_text().splitlines()[1:]]))
    with pytest.raises(StvError, match=r"Line 1 of .*train\.jsonl is .*, which is no object"):
        load(config)
    assert len(load(config, skip_broken=True).support) == 7


@pytest.mark.parametrize(
    "answer", ["x", 3, ["x"], ["x", 3], [{"answer": "x"}], [{"answer": "x", "more": 1}], ["", "x"]]
)
def test_answers_may_be_texts_numbers_lists_and_objects_with_an_answer(answer, tmp_path):
    config = dataset("vqa_jsonl", tmp_path)
    broken_at(tmp_path / "train.jsonl", 1, "answer", json.dumps(answer))
    [example] = [e for e in load(config, support=8).support if e.id == "train-0"]
    assert example.answers[0] in ("x", "3") and all(isinstance(a, str) for a in example.answers)


def test_an_answer_beside_the_ten_hides_no_entry(tmp_path):
    config = dataset("vizwiz", tmp_path)
    broken_at(tmp_path / "Annotations/train.json", 1, "answer", '"x"')
    assert len(load(config, support=8).support) == 8


@pytest.mark.parametrize("line", ["../woven_0003.jpg", "/woven_0003.jpg", "a/b/c.jpg", "alone.jpg", "", "\x1b[31m"])
def test_a_line_of_dtd_that_is_no_picture_is_refused_and_can_be_left_out(line, tmp_path):
    config = episode_settings("dtd", official_episodes.dtd(tmp_path), eval=23)
    path = tmp_path / "labels/test1.txt"
    path.write_text("\n".join([line or " ", *path.read_text().splitlines()[1:]]))
    with pytest.raises(StvError, match=r"test1\.txt has .*(at )?line 1"):
        load(config)
    assert len(load(config, skip_broken=True).evaluation) == 23


@pytest.mark.parametrize("line", ["2 ../../x.jpg", "2 /etc/x.jpg", "2", " ", "1 twice.jpg"])
def test_a_line_of_cub_that_is_no_picture_is_refused_and_can_be_left_out(line, tmp_path):
    config = episode_settings("cub", official_episodes.cub(tmp_path), support=8, eval=10)
    first, _, *rest = (tmp_path / "images.txt").read_text().splitlines()
    (tmp_path / "images.txt").write_text("\n".join([first, line, *rest]))
    with pytest.raises(StvError, match=r"images\.txt has "):
        load(config)
    assert load(config, skip_broken=True).evaluation


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -1, 0, 103])
def test_a_label_of_flowers_that_is_none_is_refused_and_can_be_left_out(value, tmp_path):
    import numpy as np
    from scipy.io import savemat

    config = episode_settings("flowers", official_episodes.flowers(tmp_path), eval=23)
    labels = np.repeat(np.array(official_episodes.FLOWER_LABELS, dtype=float), 18)
    labels[2] = value
    savemat(tmp_path / "imagelabels.mat", {"labels": labels[None]})
    with pytest.raises(StvError, match=r"imagelabels\.mat has .* as the label of picture 3, not"):
        load(config)
    assert len(load(config, skip_broken=True).evaluation) == 23


@pytest.mark.parametrize("file", [next(iter(found)) for found in FILES.values()])
def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_hang(file, tmp_path):
    config = dataset(next(name for name, found in FILES.items() if file in found), tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(StvError, match=rf"{Path(file).name} cannot be read \(it is no file\)"):
        load(config)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png() -> bytes:
    """20,000 x 20,000 black pixels in 50 kB."""
    rows = zlib.compress(bytes((20_000 // 8 + 1) * 20_000), 9)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def no_pictures(folder: Path) -> list[Path]:
    png = huge_png()
    icns = b"icns" + struct.pack(">I", len(png) + 16) + b"ic07" + struct.pack(">I", len(png) + 8) + png
    ico = struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(png), 22) + png
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    flat = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    contents = {
        "bomb.icns": icns,
        "bomb.ico": ico,
        "bomb.png": png,
        "script.eps": eps,
        "flat.png": flat,
        "empty.jpg": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    return [*folder.iterdir(), folder / "missing.jpg", folder / "a\0b.jpg", folder / ("x" * 300), folder / "\ud800.jpg"]


def test_what_is_no_picture_is_refused_by_name_without_hanging_or_filling_the_memory(tmp_path):
    for path in no_pictures(tmp_path):
        with pytest.raises(StvError, match=r"^Image .* (cannot be read|pixels, more than)") as error:
            open_image(str(path))
        assert str(error.value).isprintable()
        assert readable([Example("x", (picture(path),), "?", ("a",))], True) == ()


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "tiff", "webp", "ppm", "jpeg2000"])
def test_a_picture_that_is_cut_short_is_left_out_in_every_format(kind, tmp_path):
    official_vqa.picture(tmp_path / "whole.jpg", 0)
    file = BytesIO()
    Image.open(tmp_path / "whole.jpg").save(file, kind)
    whole, cut = (Example(name, (picture(tmp_path / name),), "?", ("a",)) for name in ("whole", "cut"))
    (tmp_path / "whole").write_bytes(file.getvalue())
    (tmp_path / "cut").write_bytes(file.getvalue()[: len(file.getvalue()) * 2 // 3])
    assert readable([whole, cut], True) == (whole,)


FIELDS = FieldsConfig(image="image", question="question", answer="label")


def hub(root: Path, **changes: object) -> DatasetConfig:
    changes = {"fields": FIELDS, "support": 6, "eval": 4, "eval_split": "train", **changes}
    return DatasetConfig(name="hub", loader="stv_exp.data.columns", task="default", root=str(root), **changes)


def saved(root: Path, images: list, questions: list | None = None, **form: object) -> Path:
    datasets = pytest.importorskip("datasets")
    rows = {"image": images, "question": questions or ["what?"] * len(images), "label": [["x", "y"]] * len(images)}
    made = datasets.Dataset.from_dict(rows)
    if form:
        made.set_format(**form)
    made.save_to_disk(str(root))
    return root


def encoded() -> bytes:
    file = BytesIO()
    Image.new("RGB", (5, 5)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", [{"type": kind} for kind in ("numpy", "torch", "pandas", "arrow")] + [{"type": None}])
@pytest.mark.parametrize("chosen", [None, ["label"]])
def test_a_format_and_a_choice_of_columns_that_were_saved_change_nothing(form, chosen, tmp_path):
    task = columns.load(hub(saved(tmp_path / "saved", [encoded()] * 12, columns=chosen, **form)))
    assert task.support[0].answers == ("x", "y") and task.support[0].question == "what?"
    assert task.support[0].pictures[0].size == (5, 5)


def test_a_missing_column_is_named(tmp_path):
    root = saved(tmp_path / "saved", [encoded()] * 12, type="numpy", columns=["label"])
    with pytest.raises(StvError, match=r"has no column 'picture'; .* image, question, label"):
        columns.load(hub(root, fields=replace(FIELDS, image="picture")))


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (None, "is empty"),
        (b"", "is empty"),
        ("", "is empty"),
        (b"no picture", "cannot be read"),
        ("../outside.png", "which leaves its folder"),
        ("/etc/outside.png", "which leaves its folder"),
        ("file:///etc/outside.png", "which leaves its folder"),
        ("a\0b", "which is no path"),
        ("missing.png", "cannot be read"),
    ],
)
def test_a_cell_that_is_no_picture_names_its_row_and_column_and_can_be_left_out(cell, complaint, tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "outside.png")
    good = encoded() if isinstance(cell, bytes | None) else "good.png"
    root = saved(tmp_path / "saved", [cell] + [good] * 11)
    Image.new("RGB", (3, 3)).save(root / "good.png")
    task = columns.load(hub(root, support=8))
    [broken] = [e for e in (*task.support, *task.evaluation) if e.id == "train-0"]
    with pytest.raises(StvError, match=rf"Image .* row train-0 column image .*{complaint}"):
        _ = broken.pictures
    kept = columns.load(hub(root, support=8, skip_broken=True))
    assert len(kept.support) + len(kept.evaluation) == 11


@pytest.mark.parametrize("cell", [3, 1.5, True, [1], [[1]], {"a": 1}, [[encoded()]], [None], []])
def test_a_column_of_no_pictures_is_refused_by_row_and_column(cell, tmp_path):
    root = saved(tmp_path / "saved", [cell] * 12)
    with pytest.raises(StvError, match=r"[Rr]ow train-\d+ .*column '?image"):
        _ = columns.load(hub(root)).support[0].pictures


@pytest.mark.parametrize("question", [None, "", " "])
def test_a_row_without_a_question_is_refused_and_can_be_left_out(question, tmp_path):
    root = saved(tmp_path / "saved", [encoded()] * 12, ["what?"] * 11 + [question])
    with pytest.raises(StvError, match=r"Row train-11 of .*saved has .* under 'question'"):
        columns.load(hub(root, support=8))
    kept = columns.load(hub(root, support=8, skip_broken=True))
    assert len(kept.support) + len(kept.evaluation) == 11


@pytest.mark.parametrize("question", [3, 1.5, ["what?"], {"a": "b"}])
def test_a_column_of_no_questions_is_refused(question, tmp_path):
    root = saved(tmp_path / "saved", [encoded()] * 12, [question] * 12)
    with pytest.raises(StvError, match=r"Row train-\d+ of .* under 'question', which is no text"):
        columns.load(hub(root))


def test_a_dataset_that_a_link_leads_to_reads_its_files(tmp_path):
    pytest.importorskip("datasets")
    for i in range(10):
        (tmp_path / f"far/{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(tmp_path / f"far/{i % 2}/{i}.png")
    (tmp_path / "link").symlink_to(tmp_path / "far")
    for name in ("link", "far"):
        config = hub(tmp_path / name, fields=replace(FIELDS, question=""))
        assert columns.load(config).support[0].pictures[0].size == (3, 3)


def test_pictures_behind_links_that_a_user_made_are_read(tmp_path):
    config = dataset("vqa_jsonl", tmp_path / "data")
    (tmp_path / "data/data").rename(tmp_path / "far")
    (tmp_path / "data/data").symlink_to(tmp_path / "far")
    (tmp_path / "root").symlink_to(tmp_path / "data")
    assert load(config, root=str(tmp_path / "root")).support[0].pictures[0].size == (32, 24)


def checked(config: Config, data: DatasetConfig, **changes: object) -> Path:
    return check_data(replace(config, dataset=replace(data, **changes)))


def test_check_data_lists_all_that_is_broken_and_not_the_first_alone(config, tmp_path, capsys):
    data = dataset("vqa_jsonl", tmp_path)
    path = tmp_path / "train.jsonl"
    for number, key, value in ((1, "image", "3"), (2, "question", r'"\ud800"'), (3, "answer", "null")):
        broken_at(path, number, key, value)
    path.write_text(path.read_text() + '\n{"image": \n')
    (tmp_path / "data/train/5.jpg").write_bytes(b"no picture")
    with pytest.raises(StvError, match=r"5 of 13 examples of vqa_jsonl/vqa are broken, the first because: Line 1 of "):
        checked(config, data, support=5)
    said = capsys.readouterr().out
    listed = [line for line in said.splitlines() if line.startswith("- ")]
    assert len(listed) == 5 and "Nothing is missing" not in said
    for part in ("Line 1 of", "Line 2 of", "Line 3 of", "no JSON at line 9", "Example train-5: Image "):
        assert sum(part in line for line in listed) == 1
    checked(config, data, support=4, skip_broken=True)
    assert "- Line 3 of" in capsys.readouterr().out


def test_check_data_lists_what_is_broken_also_where_too_little_is_left(config, tmp_path, capsys):
    data = dataset("okvqa", tmp_path)
    broken_at(tmp_path / "mscoco_train2014_annotations.json", 3, "answers", "null")
    with pytest.raises(StvError, match="has 7 examples, not 8"):
        checked(config, data, support=8)
    assert "- Entry 3 of " in capsys.readouterr().out


def test_neither_the_terminal_nor_the_sheet_obeys_a_text_from_outside(config, tmp_path, capsys):
    evil = "\x1b[2J\x07\r\n\u202e[red]x[/red][/]" + "\x9b31m"
    data = dataset("vqa_jsonl", tmp_path)
    for number in range(1, 9):
        broken_at(tmp_path / "train.jsonl", number, "answer", json.dumps(evil))
    for key in ("question", "question_id"):
        broken_at(tmp_path / "train.jsonl", 1, key, json.dumps(evil + "\0"))
    broken_at(tmp_path / "train.jsonl", 2, "image", json.dumps(evil))
    with pytest.raises(StvError) as error:
        checked(config, data, support=8, task="\x1b[31m[b]")
    said = capsys.readouterr().out
    assert r"\x1b[2J\x07\r\n\u202e[red]x[/red][/]\x9b31m" in said and r"\x1b[31m[b]" in said
    for text in (said.replace("\n", ""), str(error.value)):
        assert not set(text) & set("\x1b\x07\r\u202e\x9b\0")
    strange = Example("\x1b\ud800\n" * 99, (), "\0\ud800\n" * 10_000, (evil,))
    assert image_sheet([strange]).height < 400


def test_the_picture_that_a_processor_refuses_is_named_and_no_other_query(tmp_path):
    FAMILIES["qwen2_vl"](tmp_path)
    backbone = load_backbone(ModelConfig(name=str(tmp_path)))

    def example(name: str, size: tuple[int, int]) -> Example:
        return Example(name, (partial(Image.new, "RGB", size),), "what?", ("red",))

    template = TemplateConfig()
    good, thin = example("good", (32, 32)), example("thin", (4000, 1))
    other = make_prompt(template, good, [example("first", (32, 32))])
    for prompt in (make_prompt(template, thin, [good]), make_prompt(template, example("asked", (32, 32)), [thin])):
        with pytest.raises(StvError, match=r"refuses a picture of thin, 4000 x 1 pixels \(.*aspect ratio"):
            backbone.encode([other, prompt])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"id": 3}, "id"),
        ({"question": None}, "question"),
        ({"answers": ()}, "answers"),
        ({"answers": "x"}, "answers"),
        ({"answers": (1,)}, "answers"),
        ({"question": "\ud800"}, "question"),
        ({"id": "\ud800"}, "id"),
    ],
)
def test_what_a_loader_from_outside_makes_is_checked(changes, part):
    good = Example("good", (), "what?", ("x",))
    with pytest.raises(StvError, match=f"^Example .* of flags has .* its {part}"):
        Task("flags", (replace(good, **changes),), (good,))
