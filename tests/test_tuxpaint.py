"""Stamps become tasks by name or category; their splits never touch, and without the package it is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from stv_exp.config import Config, DatasetConfig, ModelConfig
from stv_exp.data import tuxpaint
from stv_exp.data.languages import GENERIC_QUESTION, KINDS, kind_tasks
from stv_exp.errors import StvError
from stv_exp.models.loading import load_backbone
from stv_exp.pipeline import run

ROOT = Path(__file__).parents[1]
CATEGORIES = {"animals": 9, "food": 8, "symbols": 10, "town": 7, "space": 2}
installed = pytest.mark.skipif(not Path(tuxpaint.INSTALLED).is_dir(), reason="needs tuxpaint-stamps-default")


@pytest.fixture
def dataset(tmp_path) -> DatasetConfig:
    """The shipped YAML with a small folder in the package's layout."""
    for category, n in CATEGORIES.items():
        (tmp_path / category / "sub").mkdir(parents=True)
        for i in range(n):
            path = tmp_path / category / "sub" / f"{i}.png"
            Image.new("RGBA", (40 + i, 30), (0, 0, 0, 0)).save(path)
            path.with_suffix(".txt").write_text(
                f"A {category} {i}.\nes.utf8=Uno.\nfr.utf8=Une étoile {i}.\n", encoding="utf-8"
            )
            (path.parent / f"{i}.dat").write_text("noflip")
    Image.new("RGB", (4, 4)).save(tmp_path / "town" / "0_mirror.png")  # the package has such pictures without a text
    values = yaml.safe_load((ROOT / "conf/dataset/tuxpaint.yaml").read_text(encoding="utf-8"))
    return DatasetConfig(**{**values, "root": str(tmp_path), "support": 12, "eval": 8})


def ids(examples) -> list[str]:
    return [e.id for e in examples]


@pytest.mark.parametrize("name", tuxpaint.QUESTIONS)
def test_support_and_eval_never_touch_or_move_each_other(dataset, name):
    small = tuxpaint.load(replace(dataset, task=name, support=4))
    large = tuxpaint.load(replace(dataset, task=name, support=20))
    assert ids(small.evaluation) == ids(large.evaluation) and ids(small.support) == ids(large.support)[:4]
    assert not {e.id for e in large.support} & {e.id for e in large.evaluation}
    assert {e.question for e in large.support} == {GENERIC_QUESTION}


def test_a_name_is_its_first_line_without_article_which_is_accepted_too(dataset):
    example = tuxpaint.load(replace(dataset, task="name")).support[0]
    category, _, number = example.id.split("/")
    assert example.answers == (f"{category} {number}", f"a {category} {number}")
    french = tuxpaint.load(replace(dataset, task="name-french")).support[0]
    assert french.answers == (f"étoile {french.id[-1]}", f"une étoile {french.id[-1]}")


def test_sentences_and_missing_translations_are_no_names(dataset):
    for path in Path(dataset.root).glob("food/sub/*.txt"):
        path.write_text("This is what we eat every day.\n", encoding="utf-8")
    for name in ("name", "name-french"):
        task = tuxpaint.load(replace(dataset, task=name, support=20))
        assert not any(e.id.startswith("food") for e in (*task.support, *task.evaluation))


def test_categories_are_the_top_folders_and_closed(dataset):
    task = tuxpaint.load(dataset)
    assert task.labels == tuple(sorted(CATEGORIES))
    assert all(e.answers == (e.id.split("/")[0],) for e in task.support)


def test_kinds_are_balanced_and_named_in_the_words_of_their_task(dataset):
    for name, language in kind_tasks().items():
        task = tuxpaint.load(replace(dataset, task=name))
        assert task.labels == tuple(sorted(language.words))
        for examples, each in ((task.support, 3), (task.evaluation, 2)):
            assert Counter(e.answers[0] for e in examples) == dict.fromkeys(language.words, each)
        words = {(e.id.split("/")[0], e.answers[0]) for e in (*task.support, *task.evaluation)}
        assert words == set(zip(KINDS, language.words, strict=True))


def test_the_question_is_shown_to_who_asks_for_it(dataset):
    assert tuxpaint.load(replace(dataset, explicit_question=True)).support[0].question == "What kind of thing is this?"


def test_stamps_stand_on_white(dataset):
    assert tuxpaint.load(dataset).support[0].images[0]().getpixel((0, 0)) == (255, 255, 255)


def test_a_broken_stamp_is_left_out_where_that_is_wanted(dataset):
    (Path(dataset.root) / "food/sub/0.png").write_bytes(b"")
    config = replace(dataset, support=27, eval=8, skip_broken=True)
    assert "food/sub/0" not in {e.id for e in tuxpaint.load(config).support}
    with pytest.raises(StvError, match="35 stamps, fewer than"):
        tuxpaint.load(replace(config, support=28))


@pytest.mark.parametrize("root", ["no/such/folder", "."])
def test_a_folder_without_stamps_names_the_package(dataset, tmp_path, monkeypatch, root):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(StvError, match="install the Debian package tuxpaint-stamps-default"):
        tuxpaint.load(replace(dataset, root=root))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"support": 30}, "dataset.task=category has 36 stamps, fewer than dataset.support=30"),
        ({"task": "kind-1", "support": 24}, "kind-1 has 28 stamps"),
    ],
)
def test_what_is_not_there_is_refused(dataset, changes, sentence):
    with pytest.raises(StvError, match=sentence):
        tuxpaint.load(replace(dataset, **changes))


def test_a_kind_without_stamps_is_refused(dataset, tmp_path):
    (tmp_path / "animals").rename(tmp_path / "food" / "animals")
    with pytest.raises(StvError, match=r"dataset\.task=kind-1 needs stamps in the folder animals; add some"):
        tuxpaint.load(replace(dataset, task="kind-1"))


def test_the_words_of_kinds_are_single_tokens_of_the_testbed():
    tokenizer = load_backbone(ModelConfig(name="testbed")).processor.tokenizer
    known = tokenizer.get_vocab()
    assert all(word in known for task in kind_tasks().values() for word in (*task.words, task.explicit_question))


def test_every_stage_runs_on_kinds(config: Config, dataset):
    kinds = replace(dataset, task="kind-1", support=20, eval=8, max_new_tokens=1)
    assert run(replace(config, dataset=kinds), [])["n"] == 8


@installed
def test_the_installed_package_has_hundreds_of_stamps_for_every_task(dataset):
    for name in tuxpaint.QUESTIONS:
        task = tuxpaint.load(replace(dataset, root="", task=name, support=160, eval=100))
        assert all(e.answers[0] for e in task.support) and len(task.evaluation) == 100
        assert task.support[0].images[0]().mode == "RGB"
