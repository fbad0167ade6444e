"""Methods that are found, not trained: what their parts promise beside what the oracles hold them to."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from stv_exp import TaskVector
from stv_exp.artefacts.base import UNSAVED
from stv_exp.artefacts.scan import Scan
from stv_exp.cli import configure
from stv_exp.config import BankConfig, InsertionConfig, ModelConfig
from stv_exp.data.words import load as load_words
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.library import build_bank
from stv_exp.methods import Where
from stv_exp.methods.method import Method
from stv_exp.methods.where.indirect_effect import shuffled
from stv_exp.models.loading import load_backbone
from stv_exp.models.scorer import Scorer
from stv_exp.pipeline import run
from stv_exp.stages import reading
from stv_exp.stages.effects import Asked, measure
from stv_exp.stages.scan import scan
from stv_exp.stages.search import choose
from tests import forked
from tests.conftest import with_method
from tests.families import FAMILIES
from tests.test_oracles import TEXT, words

SMALL = ["model=tiny", "tracker=none", "dataset.support=24", "dataset.eval=12"]
FV = {"where": "indirect_effect", "what": "function_vector", "how": "best_location", "k": 4}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """One sweep over what ships, as one would type it."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["-m", *SMALL, "method=tv,fv,savs", "method.k=5", "scan.pairs=12", "scan.shots=2"]
    done = forked.run(folder, *words)
    assert done.returncode == 0, done.text
    return folder / "outputs"


@pytest.mark.parametrize(
    ("method", "stages", "vectors", "evaluations"),
    [
        ("tv", ["bank", "policy", "scan"], [("residual", "replace", "prompt", 1)], 2 * 24),  # 2 layers, all the support
        ("fv", ["bank", "effects", "policy", "scan"], [("residual", "add", "prompt", 1)], 2 * 24),
        ("savs", ["scan"], [], 0),
    ],
)
def test_a_run_by_name_leaves_what_any_run_does(outputs, method, stages, vectors, evaluations):
    (folder,) = (p.parent for p in outputs.glob("runs/*/config.yaml") if f"name: {method}\n" in p.read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert sorted({*metrics["seconds"]} - {"evaluation", "total"}) == stages
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == metrics["n"] == 12
    found = [TaskVector.load(path) for path in folder.glob("task_vector.safetensors")]
    assert [(v.site, v.mode, v.when, len(v.locations)) for v in found] == vectors
    assert metrics["candidate_evaluations"] == evaluations
    assert metrics["location_search_seconds"] > 0 and not (folder / "history.csv").exists()


def test_effects_are_kept_for_every_k_every_what_and_every_how(config):
    first = run(with_method(config, **FV), [])
    other = {"where": "indirect_effect", "k": 3, "what": "clusters", "how": "reinforce", "m": 2}
    second = run(with_method(config, **other), [])
    (path,) = Path(config.outputs).glob("stages/effects-*")
    assert path.name == f"effects-{signatures(with_method(config, **FV)).effects}"
    assert first["seconds"]["effects"] == second["seconds"]["effects"], "what making it has cost, whenever that was"
    assert second["locations"] == 3 and second["location_search_seconds"] == pytest.approx(
        second["seconds"]["scan"] + second["seconds"]["effects"]
    )
    fewer = replace(with_method(config, **FV), scan=replace(config.scan, effect_prompts=3))
    a, b = signatures(with_method(config, **FV)), signatures(fewer)
    assert a.scan == b.scan and a.effects != b.effects and a.bank != b.bank


@pytest.mark.parametrize("site", ["head", "residual"])
def test_effects_do_not_depend_on_the_batch(backbone, task, config, site):
    config = with_method(config, **FV | {"what": "mean", "site": site, "k": 2})
    found = scan(backbone, task, config)
    scores = [
        measure(backbone, task, found, replace(config, trainer=replace(config.trainer, batch_size=n))).scores
        for n in (3, 32)
    ]
    torch.testing.assert_close(*scores, atol=1e-6, rtol=0)
    assert scores[0].shape == found.grid


def test_effects_are_those_of_full_forwards_where_some_layers_have_a_state(config, tmp_path, monkeypatch):
    """And what heads in three of the layers write is a candidate at all five."""
    FAMILIES["qwen3_next"](tmp_path / "model")
    backbone, task = load_backbone(ModelConfig(str(tmp_path / "model"))), words()
    config = replace(with_method(config, **FV), dataset=replace(config.dataset, template=TEXT))
    config = replace(config, scan=replace(config.scan, effect_prompts=2))
    found = scan(backbone, task, config)
    scores = measure(backbone, task, found, config).scores
    monkeypatch.setattr(Scorer, "choose", lambda self, *_: setattr(self, "way", "full"))
    torch.testing.assert_close(scores, measure(backbone, task, found, config).scores, atol=1e-5, rtol=0)
    bank = build_bank(replace(found, effects=scores), config, backbone)
    assert found.grid == (3, 4) and bank.locations.tolist() == [[0], [1], [2], [3], [4]]


def test_shuffled_prompts_ask_the_same_with_the_same_answers_at_other_places(backbone, task, config):
    import random

    prompts = Asked(backbone, task, replace(config, scan=replace(config.scan, shots=4))).prompts(30)
    assert len({prompt.query.id for prompt in prompts}) == 30, "more than there are queries"
    for prompt in prompts:
        mixed = shuffled(prompt, random.Random(0))
        assert mixed.query == prompt.query
        assert [d.images for d in mixed.demonstrations] == [d.images for d in prompt.demonstrations]
        before, after = ([d.answers for d in p.demonstrations] for p in (prompt, mixed))
        assert sorted(before) == sorted(after)
        assert len({*before}) < 4 or all(a != b for a, b in zip(before, after, strict=True))


def test_a_scan_carries_effects_and_saves_none(backbone, task, config, tmp_path):
    found = scan(backbone, task, config)
    replace(found, effects=torch.zeros(found.grid)).save(tmp_path / "with")
    found.save(tmp_path / "without")
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()
    assert Scan.load(tmp_path / "with").effects is None
    assert [f.name for f in fields(Scan) if f.metadata == UNSAVED] == ["effects"]


def test_a_method_that_needs_the_model_says_so(backbone, task, config):
    found = scan(backbone, task, config)
    with pytest.raises(StvError, match="hand build_bank the backbone and the task"):
        build_bank(found, with_method(config, **FV))
    with pytest.raises(StvError, match="needs the model's projections; hand build_bank the backbone"):
        build_bank(found, with_method(config, **FV | {"where": "sensitivity"}))
    assert build_bank(found, with_method(config, **FV), backbone, task).site == "residual"


def test_one_location_is_left_in_by_a_search_that_takes_no_step(backbone, task, config, tmp_path):
    """Whatever the state of another attempt's folder, and at any number of locations a forward."""
    config = with_method(config, where="all", what="mean", how="best_location")
    bank = build_bank(scan(backbone, task, config), config)
    chosen = choose(backbone, task, bank, config, folder=tmp_path)
    assert chosen.active.sum() == 1 and len(chosen.locations) == 1
    assert chosen.candidate_evaluations == 16 * config.policy.selection_items and chosen.history == {}


@pytest.mark.parametrize(
    ("method", "scan", "sentence"),
    [
        (FV, {"shots": 1}, "scan.shots=1 leaves method.where=indirect_effect no answers to shuffle"),
        (FV | {"site": "mlp"}, {}, "sums what heads write, which method.site=mlp has none of"),
        (FV | {"what": "clusters"}, {}, "how=best_location; use a what with one candidate a location"),
        ({"how": "class_means"}, {}, "how=class_means; use where=none and what=none"),
        (
            {"where": "none", "what": "none", "how": "class_means", "shots": 2},
            {},
            "reads queries that stand alone; set method.shots=2 to 0",
        ),
    ],
)
def test_what_cannot_work_is_refused(config, method, scan, sentence):
    with pytest.raises(StvError, match=re.escape(sentence)):
        Method.of(replace(with_method(config, **method), scan=replace(config.scan, **scan))).check()


@pytest.mark.parametrize("method", [{}, {"where": "none", "what": "none", "how": "none", "edit": "learned"}])
def test_a_weight_that_would_change_nothing_is_refused(config, method):
    config = with_method(replace(config, insertion=InsertionConfig(weight=0.5)), **method)
    with pytest.raises(StvError, match=r"insertion.weight=0.5 changes nothing where insertion.mode=replace; use"):
        Method.of(config).check()
    Method.of(replace(config, insertion=InsertionConfig(mode="blend", weight=0.5))).check()


def test_a_classifier_is_refused_where_there_are_no_labels_to_tell_apart(task):
    config = configure("method=savs", "dataset=words")
    with pytest.raises(StvError, match="method=savs answers with a label, and words/antonym has no closed set of them"):
        reading.check(load_words(config.dataset), config)
    with pytest.raises(StvError, match="Fewer than two labels of shapes/position-shared-0 have support examples"):
        reading.check(replace(task, support=task.support[:1]), config)
    with pytest.raises(StvError, match=r"method.k=20 is not within the 16 heads"):
        run(configure("method=savs", *SMALL), [])


def test_a_classifier_is_refused_where_it_learns_other_labels_than_it_is_asked_for():
    config = configure("method=savs", *SMALL, "method.k=5", "dataset.task=shape-shared-3", "fit.task=shape-shared-0")
    with pytest.raises(
        StvError, match=r"answers that are no labels of shapes/shape-shared-3, .* choose a fit.task with"
    ):
        run(config, [])


def test_validation_of_other_labels_is_no_choice_between_the_tasks_own():
    words = ["method=mean", *SMALL, "method.k=5", "dataset.task=shape-shared-3", "fit.task=shape-shared-0"]
    config = configure(*words, "dataset.metric=likelihood", "dataset.validation=4")
    with pytest.raises(StvError, match=r"dataset\.validation is of what is learned from, .* use exact_match or"):
        run(config, [])


class Flat(Where):
    asks = ("scan.shots",)

    def measure(self, probe, scan):
        return scan.with_demonstrations[0, 0].float()


class Nan(Flat):
    def measure(self, probe, scan):
        return torch.full(scan.grid, torch.nan)


@pytest.mark.parametrize(("where", "sentence"), [(Flat, r"returns torch.float32 \[8, 8\]"), (Nan, "NaN or infinity")])
def test_what_a_choice_measures_is_checked(backbone, task, config, where, sentence):
    config = with_method(config, where=f"tests.test_found.{where.__name__}")
    with pytest.raises(StvError, match=sentence):
        measure(backbone, task, scan(backbone, task, config), config)


def test_a_function_vector_may_be_left_out_of_layers_by_any_search(backbone, task, config):
    config = replace(with_method(config, **FV | {"how": "reinforce"}), bank=BankConfig(identity=True))
    bank = build_bank(scan(backbone, task, config), config, backbone, task)
    assert choose(backbone, task, bank, config).choices.shape == (2,)
