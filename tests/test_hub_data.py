"""Any dataset of the package `datasets` becomes a task through its columns, and what is not there is refused."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from PIL import Image

from stv_exp.config import DatasetConfig, FieldsConfig, TemplateConfig
from stv_exp.data import cells, columns, images
from stv_exp.errors import StvError

datasets = pytest.importorskip("datasets")
ROOT = Path(__file__).parents[1]
COLOURS = ("red", "lime", "blue")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def dataset() -> DatasetConfig:
    """The shipped YAML as the program sees it, with small splits."""
    values = yaml.safe_load((ROOT / "conf/dataset/hub.yaml").read_text(encoding="utf-8"))
    parts = {"fields": FieldsConfig(**values["fields"]), "template": TemplateConfig(**values["template"])}
    return DatasetConfig(**{**values, **parts, "support": 6, "eval": 4})


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures in folders by split and class, as `load_dataset` reads them; a picture's width is its number."""
    for split in ("train", "test"):
        for colour in COLOURS:
            (tmp_path / "data" / split / colour).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (10 + i, 10), colour).save(tmp_path / f"data/{split}/{colour}/{i}.png")
    return tmp_path / "data"


def saved(path: Path, rows: dict[str, list], splits: tuple[str, ...] = ("train", "test"), **features) -> str:
    """The same rows under every split, written by `save_to_disk`."""
    made = datasets.Dataset.from_dict(rows)
    for name, feature in features.items():
        made = made.cast_column(name, feature)
    datasets.DatasetDict(dict.fromkeys(splits, made)).save_to_disk(str(path))
    return str(path)


def encoded(mode: str = "RGB", colour: object = "red") -> bytes:
    file = BytesIO()
    Image.new(mode, (5, 5), colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_pictures_is_a_task_with_its_classes_as_labels(dataset, folder, streaming):
    task = columns.load(replace(dataset, root=str(folder), streaming=streaming))
    assert task.name == "hub/default" and set(task.labels) == set(COLOURS)
    assert (len(task.support), len(task.evaluation)) == (6, 4)
    for example in (*task.support, *task.evaluation):
        (load,) = example.images
        assert Image.new("RGB", (1, 1), example.answers[0]).getpixel((0, 0)) == load().getpixel((0, 0))
    again = columns.load(replace(dataset, root=str(folder), streaming=streaming))
    assert [(e.id, e.answers) for e in again.support] == [(e.id, e.answers) for e in task.support]


@pytest.mark.parametrize("streaming", [False, True])
def test_one_split_serves_both_sides_with_different_rows(dataset, folder, streaming):
    task = columns.load(replace(dataset, root=str(folder), eval_split="train", streaming=streaming, support=8))
    shown = [(e.answers, e.images[0]().width) for e in (*task.support, *task.evaluation)]
    assert len(set(shown)) == 12


def test_a_larger_split_begins_with_the_smaller_one_and_never_moves_the_other(dataset, folder):
    small = columns.load(replace(dataset, root=str(folder), eval_split="train", support=2))
    large = columns.load(replace(dataset, root=str(folder), eval_split="train", support=8))
    assert [e.id for e in small.support] == [e.id for e in large.support][:2]
    assert [e.id for e in small.evaluation] == [e.id for e in large.evaluation]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_dataset_with_questions_and_lists_of_answers_loads(dataset, tmp_path, streaming):
    rows = {"pic": [{"bytes": encoded()}] * 12, "q": ["où ? 何"] * 12, "a": [["one", "", "two"]] * 12}
    root = saved(tmp_path / "saved", rows, pic=datasets.Image())
    fields = FieldsConfig(image="pic", question="q", answer="a")
    task = columns.load(replace(dataset, root=root, fields=fields, streaming=streaming))
    example = task.evaluation[0]
    assert (example.question, example.answers, task.labels) == ("où ? 何", ("one", "two"), ())
    assert example.images[0]().size == (5, 5)


VOTES = [{"answer": "a cat", "confidence": "yes"}, {"answer": "", "confidence": "no"}, {"answer": "cat"}]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("cell", [VOTES, {"answer": ["a cat", "", "cat"]}, {"answer": "a cat"}])
def test_answers_may_lie_inside_objects_as_those_of_vizwiz_on_the_hub_do(dataset, tmp_path, cell, streaming):
    root = saved(tmp_path / "saved", {"answers": [cell] * 12})
    fields = FieldsConfig(image="", answer="answers.answer")
    task = columns.load(replace(dataset, root=root, fields=fields, streaming=streaming))
    assert task.support[0].answers == (("a cat",) if cell == {"answer": "a cat"} else ("a cat", "cat"))


@pytest.mark.parametrize("streaming", [False, True])
def test_question_and_answer_may_lie_in_one_object(dataset, tmp_path, streaming):
    root = saved(tmp_path / "saved", {"qa": [{"question": "which?", "answer": "cat"}] * 12})
    fields = FieldsConfig(image="", question="qa.question", answer="qa.answer")
    example = columns.load(replace(dataset, root=root, fields=fields, streaming=streaming)).support[0]
    assert (example.question, example.answers) == ("which?", ("cat",))


@pytest.mark.parametrize("answer", ["answers", "answers.reply"])
def test_a_column_of_objects_is_refused_with_a_key_that_it_has(dataset, tmp_path, answer):
    root = saved(tmp_path / "saved", {"answers": [VOTES] * 12})
    with pytest.raises(StvError, match=r"point dataset.fields.answer at one, such as answers\.answer"):
        columns.load(replace(dataset, root=root, fields=FieldsConfig(image="", answer=answer)))


def test_a_split_saved_alone_is_known_by_its_name(dataset, folder):
    datasets.load_dataset(str(folder), split="test").save_to_disk(str(folder / "../alone"))
    task = columns.load(replace(dataset, root=str(folder / "../alone"), support_split="test"))
    assert len(task.support) == 6


@pytest.mark.parametrize(("labels", "answer"), [([], "1"), (["no", "yes"], "yes")])
def test_integers_are_answers_and_names_may_be_given(dataset, tmp_path, labels, answer):
    root = saved(tmp_path / "saved", {"n": [1] * 12})
    fields = FieldsConfig(image="", answer="n", labels=labels)
    task = columns.load(replace(dataset, root=root, fields=fields))
    assert task.support[0].answers == (answer,) and task.labels == tuple(labels)


def test_pictures_may_be_several_columns_lists_bytes_or_paths(dataset, tmp_path):
    root = tmp_path / "files"  # the folder's own name may not begin with a split's: the package reads it as one
    root.mkdir()
    for name in "ab":
        Image.new("RGB", (3, 3), "blue").save(root / f"{name}.png")
    rows = {
        "paths": [["a.png", "b.png"]] * 12,
        "bytes": [encoded()] * 12,
        "list": [[{"bytes": encoded()}] * 2] * 12,
        "label": ["x"] * 12,
    }
    data = datasets.Dataset.from_dict(rows).cast_column("list", datasets.List(datasets.Image()))
    data.to_parquet(str(root / "train.parquet"))
    fields = FieldsConfig(image="bytes, paths, list")
    for streaming in (False, True):
        config = replace(dataset, root=str(root), eval_split="train", fields=fields, streaming=streaming)
        sizes = [load().size for load in columns.load(config).support[0].images]
        assert sizes == [(5, 5), (3, 3), (3, 3), (5, 5), (5, 5)]


def test_pictures_are_decoded_on_access_and_once_while_the_cache_holds_them(dataset, folder, monkeypatch):
    calls = []
    monkeypatch.setattr(cells, "open_image", lambda source: calls.append(1) or images.open_image(source))
    task = columns.load(replace(dataset, root=str(folder)))
    assert not calls
    load = task.support[0].images[0]
    assert load() is load() and len(calls) == 1


def test_transparent_pictures_stand_on_white(dataset, tmp_path):
    rows = {"image": [{"bytes": encoded("RGBA", (0, 0, 0, 0))}] * 12, "label": ["x"] * 12}
    task = columns.load(replace(dataset, root=saved(tmp_path / "saved", rows, image=datasets.Image())))
    assert task.support[0].images[0]().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n garbage", None])
def test_a_broken_picture_names_its_row_or_is_left_out(dataset, tmp_path, content):
    rows = {"image": [content and {"bytes": content}] + [{"bytes": encoded()}] * 11, "label": ["x"] * 12}
    root = saved(tmp_path / "saved", rows, image=datasets.Image())
    config = replace(dataset, root=root, support=12)
    broken = next(e for e in columns.load(config).support if e.id == "train-0")
    with pytest.raises(StvError, match=r"row train-0 column image"):
        broken.images[0]()
    assert len(columns.load(replace(config, skip_broken=True)).support) == 11


def test_pictures_of_a_packed_stream_are_fetched_from_the_archive(dataset, tmp_path):
    import json
    import zipfile

    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/train.zip", "w") as file:
        for i in range(12):
            file.writestr(f"{i}.png", encoded())
        lines = [json.dumps({"file_name": f"{i}.png", "label": "x"}) for i in range(12)]
        file.writestr("metadata.jsonl", "\n".join(lines))
    config = replace(dataset, root=str(tmp_path / "packed"), eval_split="train", streaming=True)
    assert columns.load(config).support[0].images[0]().size == (5, 5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eval_split": "val"}, "dataset.eval_split='val' is no split of dataset=hub; choose one of test, train"),
        ({"fields": FieldsConfig(image="img")}, "has no column 'img'; .* which are image, label"),
        ({"fields": FieldsConfig(answer="answer")}, "has no column 'answer'"),
        ({"task": "subset"}, r"dataset.task=subset is no configuration .*Available: \['default'\]"),
        ({"support": 13}, "Split train of .* has 12 rows, fewer than the 13 asked for; lower dataset.support"),
        ({"root": "owner/name"}, "the hub cannot be reached .*copy it to a folder"),
        ({"root": "./no/folder"}, "dataset.root='./no/folder' is no folder and no hub id"),
        ({"root": ""}, "dataset.root='' is no folder and no hub id"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_not_there_is_refused_in_one_sentence(dataset, folder, changes, sentence, streaming):
    with pytest.raises(StvError, match=sentence):
        columns.load(replace(dataset, **{"root": str(folder), "streaming": streaming, **changes}))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "doesn't contain any data files"),
        ({"train.jsonl": "{not json"}, "JSON parse error"),
        ({"script.py": "raise SystemExit"}, "scripts are no longer supported"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(dataset, tmp_path, files, sentence):
    (tmp_path / "script").mkdir()
    for name, text in files.items():
        (tmp_path / "script" / name).write_text(text)
    with pytest.raises(StvError, match=f"cannot be loaded as a dataset .*{sentence}"):
        columns.load(replace(dataset, root=str(tmp_path / "script"), eval_split="train"))


@pytest.mark.parametrize(
    ("answers", "labels", "sentence"),
    [
        (["x"] * 11 + [None], [], "Row train-11 of .* has no answer in column 'label'"),
        (["x"] * 11 + [" "], [], "Row train-11 of .* has no answer"),
        ([["x"]] * 11 + [[]], [], "Row train-11 of .* has no answer"),
        ([0] * 11 + [-1], ["a", "b"], "Row train-11 of .* has -1 in column 'label', but there are 2 labels"),
        ([0] * 11 + [2], ["a", "b"], "Row train-11 of .* has 2 in column 'label', but there are 2 labels"),
        ([{"answer": "x"}] * 12, [], "which is no text, number or list of them"),
    ],
)
def test_answers_that_are_none_are_refused_with_their_row(dataset, tmp_path, answers, labels, sentence):
    root = saved(tmp_path / "saved", {"label": answers})
    with pytest.raises(StvError, match=sentence):
        columns.load(replace(dataset, root=root, fields=FieldsConfig(image="", labels=labels), support=12))
