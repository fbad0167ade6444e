"""What users mistype, and the sentence that they read: what, where and what to do, before anything is made."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import pytest

from stv_exp.check_config import LIMITS, checked
from stv_exp.cli import configure
from stv_exp.complaint import keys
from stv_exp.config import Config, setting
from stv_exp.data.demonstrations import CHOICES
from stv_exp.errors import StvError
from stv_exp.ranges import OneOf, Path, Range, Text, Texts
from tests.forked import run

SMOKE = ["+experiment=smoke", "tracker=none"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("policy.stepz=3", "policy.stepz is not a setting; did you mean policy.steps?"),
        ("policy.steps=many", "policy.steps: Value 'many' of type 'str' could not be converted to Integer."),
        ("method=svt", "method=svt is unknown; choose one of all_heads, few_shot"),
        ("dataset=vizwizz", "dataset=vizwizz is unknown; choose one of cub, dtd, easy_vqa, flowers, hub, okvqa"),
        ("method.where=everywhere", "method.where=everywhere is unknown; choose one of all, indirect_effect, none,"),
        ("method.k=17", "method.k=17 is not within the 16 heads of tiny (2 layers x 8 heads)"),
        ("method.m=9", "method.m=9 candidates cannot be made of scan.pairs=8 activations"),
        ("dataset.task=size-9", "dataset.task='size-9' is unknown; choose one of colour-0"),
        ("dataset.eval=0", "dataset.eval=0 is not possible; it must be at least 1 and at most"),
        ("dataset.label_noise=2", "dataset.label_noise=2.0 is not possible; it must be at least 0 and at most 1."),
        ("model=hf", "model.name has no value; set it on the command line"),
        ("method.what=none", "method.where=sensitivity does not go with what=none"),
        ("dataset.loader=no.such", "dataset.loader=no.such is no module"),
        ("model.name=./no/folder", "model.name=./no/folder does not exist; check the path"),
        ("model.name=owner/model", "model.name=owner/model cannot be loaded: the hub cannot be reached"),
        ("dataset.template.query='{question}'", "The prompt of query support-"),
        ("dataset.template.demonstration='<image><image>{question}'", "The prompt of query support-"),
        ("scan.shots=16", "16 demonstrations were asked for, but the support split of shapes/position-shared-0 has 16"),
        # Taken and dropped, or a crash, in 0.2:
        ("+scan.shot=7", "scan.shot is not a setting; did you mean scan.shots?"),
        ("++scan.shot=7", "scan.shot is not a setting; did you mean scan.shots?"),
        ("+scan.shots.more=7", "scan.shots"),
        ("dataset.fields.labels=[no,true]", "dataset.fields.labels[1] takes text and True, unquoted, is read"),
        (
            "dataset.task=true",
            "dataset.task takes text and True, unquoted, is read as something else; write it in quotes",
        ),
        ("study=1.10", "study takes text and 1.1, unquoted, is read as something else"),
        ("dataset.fields.question=null", "dataset.fields.question must have a value; null is none."),
        ("outputs=''", "outputs='' is not possible; it must be a path, not empty."),
        ("study=../x", "study=../x is not possible; it must be a name without slashes"),
        ("policy.lr=1e30", "policy.lr=1e+30 is not possible; it must be above 0 and at most 100."),
        ("policy.lr=nan", "policy.lr=nan is not possible; it must be above 0 and at most 100."),
        ("policy.selection_items=0", "policy.selection_items=0 is not possible; it must be at least 1"),
        ("seed=3000000000", "seed=3000000000 is not possible; it must be at least 0 and at most 2147483647."),
        (
            "dataset.template.query='{\"answer\"}'",
            "dataset.template.query='{\"answer\"}' cannot be filled in; it may hold",
        ),
        ("dataset.template.demonstration='{'", "dataset.template.demonstration='{' cannot be filled in; it may hold"),
        (
            "dataset.template.answer='{answer.x}'",
            "dataset.template.answer='{answer.x}' cannot be filled in; it may hold",
        ),
        ("method.shots=-1", "method.shots=-1 is not possible; it must be at least 0"),
        ("trainer.threads=-1", "trainer.threads=-1 is not possible; it must be at least 0 and at most 1024."),
        ("policy.cache_bytes=-1", "policy.cache_bytes=-1 is not possible; it must be at least 0"),
        ("dataset.loader=os", "dataset.loader=os has no function load(DatasetConfig) -> Task"),
        ("dataset.loader=''", "dataset.loader= is no module (ValueError: Empty module name)"),
        (
            "model.heads.pattern='model.text_model.layers.{layer}.self_attn.q_proj'",
            "q_proj stands beside the output projection o_proj",
        ),
        ("tracker.project=a/b", "tracker.project=a/b is not possible; it must be a name without /"),
        ("policy.queries=17", "policy.queries=17 exceeds the 16 support examples of shapes/position-shared-0"),
        ("method.k=${oc.env:NOPE}", "KeyError raised while resolving interpolation: \"Environment variable 'NOPE'"),
        # Hydra's own words, cut off in 0.2:
        ("metod=stv", "metod is not a setting; did you mean method?"),
        ("method.k=1,2", "method.k=1,2 has several values; add -m to run one job for each, or use [ ] for a list."),
        ("hydra/sweeper=ax", "hydra/sweeper=ax needs a plug-in of Hydra; run: pip install hydra-ax-sweeper."),
        (
            "dataset.root=a=b",
            "The value in dataset.root=a=b cannot be read; put it in quotes, both of them: \"dataset.root='a=b'\".",
        ),
        ("dataset.root=a(b", "put it in quotes, both of them: \"dataset.root='a(b'\"."),
        ("dataset.root=~/x", "put it in quotes, both of them: \"dataset.root='~/x'\"."),
        ("study=é", "put it in quotes, both of them: \"study='é'\"."),
        ("foo", "'foo' is no setting; write key=value, as in method.k=8."),
        ("method=3", "A group (model, dataset, method,"),
        ("+method=stv", "Multiple values for method. To override a value use 'override method: stv'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_1(tmp_path, override, sentence):
    done = run(tmp_path, *SMOKE, override)
    assert done.returncode == 1
    assert "Error: " in done.text and sentence in done.text, done.text
    assert "Traceback" not in done.text
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("scan-*/"))


@pytest.mark.parametrize("value", ["a=b", "a(b)", "~/x", "é", "a'b", "a b"])
def test_the_quoted_value_that_is_suggested_is_read(value):
    quoted = value.replace("'", "\\'")
    assert configure(f"dataset.task='{quoted}'").dataset.task == value


def test_experiment_is_taken_with_and_without_a_plus(tmp_path):
    words = ["tracker=none", "method=zero_shot"]
    assert run(tmp_path, "experiment=smoke", *words).returncode == 0
    assert "is done" in run(tmp_path, "+experiment=smoke", *words).text


def test_a_home_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run(tmp_path, *SMOKE, "method=zero_shot", "outputs='~/there'")
    assert done.returncode == 0 and list(tmp_path.glob("there/runs/*/metrics.json")), done.text
    assert not (tmp_path / "~").exists()
    for key in (key for key, limit in LIMITS.items() if isinstance(limit, Path)):
        word = f"{key}='~/x'" if key in keys() else ""
        assert setting(configure(word), key) == str(tmp_path / "x")


def test_a_home_of_nobody_is_a_folder_of_that_name(tmp_path):
    """As in a shell: there is no traceback."""
    assert configure("outputs='~no_such_user/x'").outputs == "~no_such_user/x"
    done = run(tmp_path, *SMOKE, "method=zero_shot", "outputs='~no_such_user/x'")
    assert done.returncode == 0 and (tmp_path / "~no_such_user/x/runs").is_dir(), done.text


def test_a_model_of_the_hub_is_refused_at_once_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run(tmp_path, *SMOKE, "model.name=owner/x")
    assert "model.name=owner/x cannot be loaded: the hub cannot be reached and the files are not in the" in done.text
    assert done.returncode == 1 and "Retrying" not in done.text


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_every_limit_holds_for_its_own_default_and_refuses_what_is_beyond(key):
    config = _smoke()
    assert LIMITS[key].allows(setting(config, key))
    for value in _beyond(LIMITS[key]):
        with pytest.raises(StvError, match="is not possible; it must be"):
            checked(_with(config, key.split("."), value))


@cache
def _smoke() -> Config:
    return configure("+experiment=smoke")


def _beyond(limit: object) -> list[object]:
    if isinstance(limit, Range):
        beyond = [limit.low - 1, limit.high + 1, float("nan"), float("inf")]
        return [*beyond, limit.low] if limit.above else beyond
    if isinstance(limit, Texts):
        return [["good", "a\0b"], [""]]
    assert isinstance(limit, OneOf | Text)
    return ["no such word"] if isinstance(limit, OneOf) else ["a\0b"]


def _with(config: object, path: list[str], value: object) -> Config:
    first, *rest = path
    return replace(config, **{first: _with(getattr(config, first), rest, value) if rest else value})  # type: ignore


def test_every_number_has_a_limit():
    numbers = {key for key in keys() if type(setting(Config(), key)) in (int, float)}
    assert numbers <= LIMITS.keys()


def test_the_ways_to_choose_demonstrations_are_those_there_are():
    assert set(LIMITS["demonstrations.choice"].words) == CHOICES.keys()


def test_the_help_says_what_each_setting_may_be(tmp_path):
    shown = run(tmp_path, "--help").text
    assert all(f"{key} " in shown and str(limit) in shown for key, limit in LIMITS.items())
