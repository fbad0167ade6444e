"""DTD, Flowers-102 and CUB-200-2011 load from their official layouts, as fair episodes."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.io import savemat

from stv_exp.config import Config, DatasetConfig, EpisodeConfig, ScanConfig
from stv_exp.data import flowers
from stv_exp.data.loader import load_task
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.pipeline import run
from tests import official_episodes as official

NAMES = ("dtd", "flowers", "cub")
CLASSES = {
    "dtd": {"banded", "polka-dotted", "zigzagged", "woven"},
    "flowers": {"pink primrose", "daffodil", "rose", "blackberry lily"},
    "cub": {"Black footed Albatross", "Laysan Albatross", "Lazuli Bunting", "Common Yellowthroat"},
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    return {name: getattr(official, name)(tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.fixture(params=NAMES)
def dataset(request, roots) -> DatasetConfig:
    return settings(request.param, roots[request.param])


def settings(name: str, root: Path, **changes: object) -> DatasetConfig:
    """The dataset's own YAML over the schema, with sizes of the small copy."""
    file = Path(__file__).parents[1] / "conf" / "dataset" / f"{name}.yaml"
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DatasetConfig), OmegaConf.load(file)))
    assert isinstance(config, DatasetConfig)
    return replace(config, **{"root": str(root), "support": 12, "eval": 20, **changes})


def episode(dataset: DatasetConfig, **changes: object) -> DatasetConfig:
    return replace(dataset, episode=replace(dataset.episode, **changes))


def load(dataset: DatasetConfig) -> Task:
    return load_task(Config(dataset=dataset))


def files(example: Example) -> list[str]:
    return [handle.args[0] for handle in example.images]


def names_in(example: Example) -> list[str]:
    """Options of the query, in order."""
    return [part[2:] for part in example.question.split("? ")[-1].split("\n")[0].replace(" B.", "|B.").split("|")]


def test_the_official_files_give_the_official_classes_and_splits(dataset):
    named = load(replace(episode(dataset, options=False), metric="exact_match", support=24, eval=24))
    assert set(named.labels) == CLASSES[dataset.name]
    assert Counter(e.answers[0] for e in named.evaluation) == dict.fromkeys(CLASSES[dataset.name], 6)
    noun = {"dtd": "texture", "flowers": "flower", "cub": "bird"}[dataset.name]
    assert {e.question for e in named.support} == {f"<image>What is the type of {noun} in the image? Answer:"}
    assert all(len(e.images) == 1 and Path(files(e)[0]).is_file() for e in (*named.support, *named.evaluation))


def test_a_picture_has_the_class_that_its_files_say(roots):
    named = {
        name: load(replace(episode(settings(name, root), options=False), metric="exact_match", support=24, eval=24))
        for name, root in roots.items()
    }
    for e in named["dtd"].evaluation:
        assert e.id.startswith(e.answers[0] + "/")
    for e in named["cub"].evaluation:
        assert e.id[4:].replace("_", " ").startswith(e.answers[0] + "/")
    known = dict(zip(official.FLOWER_LABELS, ("pink primrose", "daffodil", "rose", "blackberry lily"), strict=True))
    for e in named["flowers"].evaluation:
        number = int(e.id.removeprefix("image_").removesuffix(".jpg"))
        assert number % 3 == 0 and e.answers == (known[official.FLOWER_LABELS[(number - 1) // 18]],)


def test_there_are_102_different_flower_names_from_pink_primrose_to_blackberry_lily():
    names = flowers.flower_names()
    assert len(names) == len(set(names)) == 102
    assert {i: names[i - 1] for i in (1, 21, 51, 77, 96, 102)} == {
        1: "pink primrose",
        21: "fire lily",
        51: "petunia",
        77: "passion flower",
        96: "camellia",
        102: "blackberry lily",
    }


def test_an_episode_is_worded_as_in_mtvs_code(roots):
    dataset = settings("cub", roots["cub"])
    query = load(dataset).evaluation[0]
    a, b = names_in(query)
    asked = (
        f"<image>What is the type of bird in the image? A.{a} B.{b}\n"
        "Answer with the option's letter from the given choice directly. Answer:"
    )
    assert make_prompt(dataset.template, query).text == f"{asked} A\n{asked} B\n{asked}"
    assert query.answers == ("A",)
    demonstration = load(dataset).support[1]
    assert make_prompt(dataset.template, query, [demonstration]).text == f"{demonstration.question} B\n{query.question}"


def test_each_picture_shows_the_class_of_its_letter(dataset):
    for e in load(dataset).evaluation:
        wanted = [*names_in(e), names_in(e)["AB".index(e.answers[0])]]
        assert len(set(names_in(e))) == 2 and len(set(files(e))) == 3 == e.question.count("<image>")
        for file, name in zip(files(e), wanted, strict=True):
            assert class_of(file) == name


def class_of(file: str) -> str:
    """The class of a picture, from its path."""
    path = Path(file)
    if path.parent.name == "jpg":
        label = official.FLOWER_LABELS[(int(path.stem[6:]) - 1) // (3 * official.PICTURES)]
        return flowers.flower_names()[label - 1]
    return path.parent.name.split(".")[-1].replace("_", " ")


@pytest.mark.parametrize("n", [7, 12, 20])
@pytest.mark.parametrize("ways", [2, 3])
def test_each_letter_is_right_equally_often(dataset, n, ways):
    counts = Counter(e.answers[0] for e in load(episode(replace(dataset, eval=n), ways=ways)).evaluation)
    assert set(counts) == set("ABC"[:ways]) and max(counts.values()) - min(counts.values()) <= 1


def test_no_query_is_among_its_own_examples_nor_in_a_demonstration(dataset):
    task = load(episode(replace(dataset, support=16, eval=24), shots=2, ways=3))
    for e in (*task.support, *task.evaluation):
        assert len(files(e)) == len(set(files(e))) == 7
    queries = {files(e)[-1] for e in task.support}
    assert not queries & {file for e in task.support for file in files(e)[:-1]}


def test_no_picture_is_in_both_splits(dataset):
    task = load(dataset)
    support, evaluation = ({file for e in split for file in files(e)} for split in (task.support, task.evaluation))
    assert not support & evaluation


def test_episodes_are_the_same_each_time_and_in_larger_splits(dataset):
    first, again, more = load(dataset), load(dataset), load(replace(dataset, eval=24))
    questions = [e.question for e in first.evaluation]
    assert questions == [e.question for e in again.evaluation] == [e.question for e in more.evaluation][:20]
    assert [files(e) for e in first.support] == [files(e) for e in again.support]
    assert len({e.id for e in more.evaluation}) == 24


def test_disjoint_classes_are_disjoint_and_are_all_of_them(dataset):
    task = load(episode(replace(dataset, support=8, eval=12), disjoint_classes=True))
    support, evaluation = ({n for e in split for n in names_in(e)} for split in (task.support, task.evaluation))
    assert not support & evaluation and support | evaluation == CLASSES[dataset.name]


def test_ways_and_shots_beyond_two_and_one(roots):
    e = load(episode(settings("dtd", roots["dtd"]), ways=4, shots=2)).evaluation[3]
    assert e.answers == ("D",) and len(e.images) == 9
    assert [line[-1] for line in e.question.split("\n")[1:-1:2]] == list("ABCDABCD")


def test_episodes_without_examples_ask_with_options_only(roots):
    e = load(episode(settings("dtd", roots["dtd"]), shots=0)).evaluation[0]
    assert len(e.images) == 1 and e.question.count("A.") == 1


def test_another_partition_of_dtd_has_its_own_lists(roots, tmp_path):
    official.dtd(tmp_path, partition=7)
    assert load(settings("dtd", tmp_path, partition=7)).evaluation
    with pytest.raises(StvError, match=r"labels/train2\.txt"):
        load(settings("dtd", tmp_path, partition=2))
    with pytest.raises(StvError, match=r"dataset\.partition=11"):
        load(settings("dtd", tmp_path, partition=11))


def test_broken_pictures_are_left_out_before_episodes_are_drawn(tmp_path, caplog):
    official.dtd(tmp_path)
    broken = tmp_path / "images" / (tmp_path / "labels" / "test1.txt").read_text().split()[0]
    broken.write_bytes(b"no picture")
    task = load(settings("dtd", tmp_path, skip_broken=True, eval=23))
    assert str(broken) not in {file for e in task.evaluation for file in files(e)}
    assert "Left out 1 of 24" in caplog.text


@pytest.fixture
def published(roots, tmp_path) -> Callable[..., DatasetConfig]:
    """Flowers with annotation files of MTV's kind."""

    def make(flawed: bool = False) -> DatasetConfig:
        folder = official.annotations(tmp_path / "mtv", roots["flowers"], flawed=flawed)
        return replace(episode(settings("flowers", roots["flowers"]), annotations=str(folder)), support=10, eval=10)

    return make


def test_mtvs_files_load_as_they_are(published, roots):
    dataset = published()
    task = load(dataset)
    rows = json.loads((Path(dataset.episode.annotations) / "flower_test.json").read_text())
    assert {e.answers for e in task.evaluation} == {("A",), ("B",)}
    for e in task.evaluation:
        row = rows[int(e.id.removeprefix("test-")) - 1]
        assert files(e) == [str(roots["flowers"] / row[key]) for key in ("pos", "neg", "query")]
        a, b = ("rose", "lotus") if e.answers == ("A",) else ("lotus", "rose")
        asked = f"<image>What is the type of flower in the image? A.{a} B.{b}\nAnswer with the option's letter from "
        assert e.question.startswith(f"{asked}the given choice directly. Answer: {e.answers[0]}\n<image>")


def test_flaws_of_mtvs_files_are_counted_in_one_sentence(published, caplog):
    load(published(flawed=True))
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "2 queries that are their own positive example and 1 pictures that both train and test" in record.message


def test_mtvs_files_without_flaws_are_not_complained_of(published, caplog):
    load(published())
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "no list of episodes"),
        ("[]", "no list of episodes"),
        ('[{"pos": "a.jpg"}]', "Entry 1 of .* has no 'neg'"),
        ("[", "is no JSON at line 1"),
    ],
)
def test_a_malformed_annotation_file_is_refused(published, content, sentence):
    dataset = published()
    (Path(dataset.episode.annotations) / "flower_test.json").write_text(content)
    with pytest.raises(StvError, match=sentence):
        load(dataset)


def test_annotations_without_a_file_for_a_split_are_refused(published, tmp_path):
    with pytest.raises(StvError, match=r"has 0 files \*val\.json"):
        load(replace(published(), eval_split="val"))


def test_options_that_annotations_do_not_have_are_refused(published):
    with pytest.raises(StvError, match="2 ways and 1 shot"):
        load(episode(published(), shots=2))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eval_split": "dev"}, "eval_split='dev' is no split"),
        ({"eval_split": "train"}, "are both train"),
        ({"eval": 25}, "has 24 examples, not 25; lower dataset.eval"),
        ({"support": 21}, "has 20 examples, not 21; lower dataset.support"),
        ({"episode": EpisodeConfig(ways=5)}, "has 4 classes, fewer than dataset.episode.ways=5"),
        ({"episode": EpisodeConfig(ways=3, disjoint_classes=True)}, "has 2 classes, fewer than"),
        ({"episode": EpisodeConfig(ways=1)}, "ways=1 cannot be lettered"),
        ({"episode": EpisodeConfig(ways=27)}, "ways=27 cannot be lettered"),
        ({"episode": EpisodeConfig(shots=6)}, "has 6 pictures .* fewer than dataset.episode.shots=6 and a query"),
        ({"episode": EpisodeConfig(options=False)}, "set dataset.metric=exact_match"),
    ],
)
def test_settings_that_the_data_cannot_meet_are_refused(dataset, changes, sentence):
    with pytest.raises(StvError, match=sentence):
        load(replace(dataset, **changes))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("dtd", ["images", "labels/train1.txt", "labels/test1.txt"]),
        ("flowers", ["jpg", "imagelabels.mat", "setid.mat"]),
        ("cub", ["images", "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt"]),
    ],
)
def test_an_empty_folder_is_told_all_that_goes_there(tmp_path, name, needed):
    with pytest.raises(StvError) as error:
        load(settings(name, tmp_path))
    assert all(path in str(error.value) for path in needed)


def test_a_list_of_dtd_that_is_none_is_refused_by_line(tmp_path):
    official.dtd(tmp_path)
    path = tmp_path / "labels" / "test1.txt"
    path.write_text(path.read_text().replace("woven/woven_0003.jpg", "woven_0003.jpg"))
    with pytest.raises(StvError, match=r"test1\.txt has 'woven_0003\.jpg' at line"):
        load(settings("dtd", tmp_path))
    official.write_lines(path, ["woven/woven_0003.jpg"] * 2)
    with pytest.raises(StvError, match="twice"):
        load(settings("dtd", tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (
            "imagelabels.mat",
            {"labels": np.ones((1, 71), np.uint8)},
            "has 72 under 'tstid', not a whole number within 1-71",
        ),
        (
            "imagelabels.mat",
            {"labels": np.full((1, 72), 103, np.uint8)},
            "has 103 as the label of picture 1, not .* within 1-102",
        ),
        ("imagelabels.mat", {"names": np.ones((1, 72))}, "no numbers under the key 'labels'"),
        ("setid.mat", {"trnid": np.zeros((1, 0)), "tstid": np.ones((1, 3))}, "no numbers under the key 'trnid'"),
        ("setid.mat", {"trnid": np.ones((1, 3)), "tstid": np.ones((1, 3))}, "has the id 'image_00001.jpg' twice"),
    ],
)
def test_labels_of_flowers_that_do_not_fit_are_refused(tmp_path, file, content, sentence):
    official.flowers(tmp_path)
    if "1-71" in sentence:  # the train split still fits
        savemat(tmp_path / "setid.mat", {"trnid": np.arange(1, 72, 3)[None], "tstid": np.arange(3, 73, 3)[None]})
    savemat(tmp_path / file, content)
    with pytest.raises(StvError, match=sentence):
        load(settings("flowers", tmp_path))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 40, None])
def test_a_damaged_mat_file_is_refused_by_name(tmp_path, content):
    path = official.flowers(tmp_path) / "imagelabels.mat"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(StvError, match=r"imagelabels\.mat (is no MATLAB file|has no numbers)"):
        load(settings("flowers", tmp_path))


def test_flowers_without_scipy_says_what_to_install(roots, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(StvError, match=r"pip install 'stv_exp\[flowers\]'"):
        load(settings("flowers", roots["flowers"]))


@pytest.mark.parametrize(
    ("file", "lines", "sentence"),
    [
        ("image_class_labels.txt", ["1 1"], "has no line for picture 2;"),
        (
            "image_class_labels.txt",
            [f"{i} 9" for i in range(1, 49)],
            r"classes\.txt has no line for the class of picture 1, 9",
        ),
        ("train_test_split.txt", ["1 1", "1 0"], "has the id '1' twice"),
        ("images.txt", ["1 a.jpg", "2"], "no number and value at line 2"),
    ],
)
def test_lists_of_cub_that_do_not_agree_are_refused(tmp_path, file, lines, sentence):
    official.cub(tmp_path)
    official.write_lines(tmp_path / file, lines)
    with pytest.raises(StvError, match=sentence):
        load(settings("cub", tmp_path))


@pytest.mark.parametrize("options", [True, False])
def test_every_stage_runs_on_the_official_files(dataset, config, options):
    metric = dataset.metric if options else "exact_match"
    dataset = replace(episode(dataset, options=options), metric=metric, max_new_tokens=2, eval=6)
    config = replace(config, dataset=dataset, scan=ScanConfig(pairs=8, shots=1))
    metrics = run(config, [])
    assert metrics["n"] == 6 and metrics["locations"] == 5 and metrics["candidate_evaluations"] > 0
