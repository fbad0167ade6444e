"""Variants crossed with a grid: which jobs they make, and a sweep of them from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

import stv_exp.cli
from stv_exp.complaint import complaint
from stv_exp.compose import config_folder, to_config
from stv_exp.composer import Composer
from stv_exp.config import Config
from stv_exp.errors import StvError
from stv_exp.grids import BasicSweeper, job_overrides, parse_variant
from tests.test_cli import stv_exp

PARSER = OverridesParser.create()
VARIANTS = ("method=zero_shot", "method=few_shot method.shots=1,5")
CONF = Path(__file__).parents[1] / "conf"


def jobs(params: str = "", given: str = "", variants: tuple[str, ...] = (), tasks: tuple[str, ...] = ()) -> list[str]:
    """The jobs, each as it is typed."""
    parsed = [PARSER.parse_overrides(words.split()) for words in (params, given)]
    lines = [[parse_variant(line, PARSER) for line in own] for own in (variants, tasks)]
    return [" ".join(job) for job in job_overrides(*parsed, *lines)]


def test_every_variant_runs_in_each_point_of_the_grid_and_varies_fastest():
    assert jobs("dataset.task=a,b seed=0,1", variants=VARIANTS) == [
        f"dataset.task={task} seed={seed} {variant}"
        for task in "ab"
        for seed in "01"
        for variant in ("method=zero_shot", "method=few_shot method.shots=1", "method=few_shot method.shots=5")
    ]


def test_the_variants_of_smollm2_are_6_a_task_and_seed():
    sweeper = yaml.safe_load((CONF / "experiment/smollm2.yaml").read_text())["hydra"]["sweeper"]
    params = " ".join(f"{key}={str(value).replace(' ', '')}" for key, value in sweeper["params"].items())
    made = jobs(params, variants=tuple(sweeper["variants"]))
    assert len(made) == 11 * 3 * 6
    assert all(job.startswith("dataset.task=adjective_to_adverb seed=0 method=") for job in made[:6])


@pytest.mark.parametrize(
    ("params", "given"),
    [("", ""), ("a=1,2 b=3", ""), ("a=1,2 b=3,4", "+experiment=x a=5,6 c=7"), ("", "a=choice(1,2) b=range(0,2)")],
)
def test_without_variants_the_jobs_are_hydras_own(params, given):
    overrides = PARSER.parse_overrides([*params.split(), *given.split()])
    assert [jobs(params, given)] == [[" ".join(j) for j in b] for b in BasicSweeper.split_arguments(overrides, None)]


def test_a_key_of_the_command_line_replaces_that_of_the_grid():
    assert jobs("seed=0,1,2", "seed=7", ("method=stv",)) == ["seed=7 method=stv"]
    assert jobs("seed=0,1,2", "++seed=7", ("method=stv",)) == ["++seed=7 method=stv"]


def test_a_method_of_the_command_line_takes_the_place_of_the_variants():
    assert jobs("seed=0", "method=mtv,stv", VARIANTS) == ["seed=0 method=mtv", "seed=0 method=stv"]


def test_a_method_of_the_command_line_is_crossed_with_variants_of_something_else():
    assert jobs("", "method=stv", ("method.k=1,2", "method.m=3")) == [
        "method=stv method.k=1",
        "method=stv method.k=2",
        "method=stv method.m=3",
    ]


def test_another_key_of_the_command_line_replaces_it_in_the_variants_and_doubles_are_dropped():
    assert jobs("", "method.shots=3", VARIANTS) == ["method.shots=3 method=zero_shot", "method.shots=3 method=few_shot"]
    assert jobs("", "++method.shots=3", VARIANTS[1:]) == ["++method.shots=3 method=few_shot"]
    assert jobs("", "seed=3", ("seed=0,1", "seed=2")) == ["seed=3"]


def test_a_key_of_a_variant_replaces_that_of_the_grid_in_its_line_only():
    assert jobs("seed=0,1", variants=("method=zero_shot seed=0", "method=stv")) == [
        "method=zero_shot seed=0",
        "seed=0 method=stv",
        "seed=1 method=stv",
    ]


def test_every_task_of_a_list_is_crossed_with_every_variant_and_varies_more_slowly():
    tasks = ("dataset.task=a,b dataset.label_noise=0.3", "dataset=easy_vqa dataset.task=c")
    named = [f"dataset.task={task} dataset.label_noise=0.3" for task in "ab"] + ["dataset=easy_vqa dataset.task=c"]
    each = ("method=zero_shot", "method=few_shot method.shots=1", "method=few_shot method.shots=5")
    assert sorted(jobs("seed=0,1", variants=VARIANTS, tasks=tasks)) == sorted(
        f"seed={seed} {task} {variant}" for seed in "01" for task in named for variant in each
    )
    assert jobs("", tasks=tasks) == named
    assert jobs("", "dataset.task=x", VARIANTS, tasks) == [f"dataset.task=x {variant}" for variant in each]
    assert jobs("", "method=stv", VARIANTS, tasks) == [f"method=stv {task}" for task in named]


def test_a_job_that_is_named_twice_is_launched_once():
    assert jobs("seed=0,0", variants=(*VARIANTS, VARIANTS[0])) == jobs("seed=0", variants=VARIANTS)
    assert jobs("", "seed=0,0,1") == ["seed=0", "seed=1"]


def test_an_empty_variant_is_the_grid_itself():
    assert jobs("seed=0", variants=("", "method=stv")) == ["seed=0", "seed=0 method=stv"]


def test_a_quoted_value_of_a_variant_may_hold_spaces_and_commas():
    assert jobs(variants=("method=stv 'dataset.template.query=\"{question}, please\"'",)) == [
        'method=stv dataset.template.query="{question}, please"'
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("method=few shot", "Error parsing override 'shot': missing EQUAL"),
        ("method=stv method.k=1,,2", "Error parsing override 'method.k=1,,2': extraneous input ','"),
        ("-m method=stv", "-m"),
        ("method='stv", "No closing quotation"),
        ("policy.lr=interval(0,1)", "does not support sweep type : INTERVAL_SWEEP"),
        ({"method": "stv"}, "it is no text"),
    ],
)
def test_a_line_that_is_no_grid_is_refused_by_name(line, reason):
    with pytest.raises(StvError) as refused:
        parse_variant(line, PARSER)
    sentence = str(refused.value)
    assert sentence.startswith(f"hydra.sweeper.variants: the line {str(line)!r} cannot be read (")
    assert reason in sentence and "\n" not in sentence


def test_a_bad_line_ends_in_one_sentence_before_anything_runs(tmp_path):
    done = stv_exp("-m", "+experiment=smoke", "hydra.sweeper.variants=['method=stv','method']", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: hydra.sweeper.variants: the line 'method' cannot be read" in done.stderr
    assert not list(tmp_path.rglob("runs"))


def test_a_variant_that_does_not_compose_is_refused_and_the_others_run_unless_that_is_unwanted(tmp_path):
    words = ["-m", "+experiment=smoke", "tracker=none", "hydra.sweeper.variants=['method=zero_shot','method=svt']"]
    done = stv_exp(*words, "fail_fast=true", cwd=tmp_path)
    assert done.returncode == 1 and "method=svt is unknown; choose one of" in done.stderr
    assert not list(tmp_path.rglob("status.json"))
    done = stv_exp(*words, cwd=tmp_path)
    assert done.returncode == 1 and "method=svt is unknown; choose one of" in done.stderr
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


def test_a_task_that_a_dataset_does_not_have_is_refused_before_anything_runs(tmp_path):
    words = ["-m", "+experiment=smoke", "tracker=none", "fail_fast=true", "dataset.task=colour-0,size-9"]
    done = stv_exp(*words, cwd=tmp_path)
    assert done.returncode == 1 and "dataset.task='size-9' is unknown; choose one of colour-0" in done.stderr
    assert not list(tmp_path.rglob("status.json"))


def test_a_sweep_of_which_nothing_composes_names_each_job_and_no_other_setting(tmp_path):
    done = stv_exp("-m", "+experiment=smoke", "tracker=none", "method=svt,mtw", "method.k=3", cwd=tmp_path)
    assert done.returncode == 1 and "Error: 2 of 2 jobs were refused and 0 have failed:" in done.stderr
    assert "is not read by" not in done.stderr


def test_an_experiment_of_two_variants_ends_in_their_table(tmp_path):
    sweeper = {"params": {"seed": "0,1"}, "variants": ["method=zero_shot", "method=few_shot method.shots=1,2"]}
    experiment = {
        "defaults": ["smoke", "_self_"],
        "study": "two",
        "hydra": {"mode": "MULTIRUN", "sweeper": sweeper},
    }
    path = tmp_path / "own/experiment/two.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\n" + yaml.safe_dump(experiment))
    done = stv_exp("--config-dir", "own", "+experiment=two", "tracker=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[6/6] few_shot" in done.stdout
    assert all(label in done.stdout for label in ("zero_shot", "few_shot shots=1", "few_shot shots=2"))
    assert (tmp_path / "outputs/sweeps/two/table.md").is_file()


def test_hydras_own_sweeper_is_still_a_choice(tmp_path):
    words = ["hydra/sweeper=basic", "+experiment=smoke", "tracker=none", "method=zero_shot,few_shot"]
    done = stv_exp("-m", *words, cwd=tmp_path)
    assert done.returncode == 0 and len(list(tmp_path.rglob("metrics.json"))) == 2, done.stderr


def test_each_experiment_of_a_list_has_its_own_grid(tmp_path):
    grids = {"one": {"params": {"seed": "0,1"}}, "two": {"variants": ["method=few_shot method.shots=1,2"]}}
    for name, sweeper in grids.items():
        path = tmp_path / f"own/experiment/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        experiment = {"defaults": ["smoke", "_self_"], "study": name, "hydra": {"sweeper": sweeper}}
        path.write_text("# @package _global_\n" + yaml.safe_dump(experiment))
    words = ["-m", "--config-dir", "own", "+experiment=one,two,three", "tracker=none", "plan=true"]
    done = stv_exp(*words, cwd=tmp_path)
    assert "4 jobs" in done.stdout and "shots=2" in done.stdout, done.text
    assert done.returncode == 1 and "experiment=three is unknown; choose one of" in done.stderr


def test_a_subset_of_the_jobs_is_drawn_by_its_own_seed(tmp_path):
    words = ["-m", "+experiment=smoke", "tracker=none", "plan=true", "method=zero_shot", "seed=range(0,20)"]
    done = [stv_exp(*words, f"hydra.sweeper.subset={n}", cwd=tmp_path) for n in (3, 3, 0)]
    assert "3 jobs" in done[0].stdout and done[0].stdout == done[1].stdout
    assert (
        done[2].returncode == 1 and "hydra.sweeper.subset=0 is not possible; it must be at least 1." in done[2].stderr
    )


def test_a_setting_is_given_to_a_sweep_and_not_to_the_jobs_that_a_subset_draws(tmp_path):
    words = ["-m", "+experiment=smoke", "tracker=none", "plan=true", "method=zero_shot,mtv", "hydra.sweeper.subset=1"]
    done = [
        stv_exp(*words, f"{key}=2", "hydra.sweeper.subset_seed=1", cwd=tmp_path)
        for key in ("policy.steps", "train.epochs")
    ]
    assert done[0].returncode == 0 and "1 job" in done[0].stdout and "zero_shot" in done[0].stdout, done[0].text
    assert done[1].returncode == 1 and "train.epochs is not read by method=zero_shot,mtv;" in done[1].stderr


@pytest.mark.parametrize(
    "words",
    [
        ["method=stv", "method.k=8", "seed=3"],
        ["+experiment=quickstart", "dataset.task=colour-0", "method=mtv", "policy.steps=7"],
        ["model=qwen3", "model.chat=true", "+model.chat_arguments.enable_thinking=false"],
        ["dataset=words", "model=smollm2", "dataset.template.query='Q: {question}'", "limit=5"],
        ["dataset=hub", "dataset.root=x", "dataset.fields.labels=[a,'no']"],
        ["protocol=published", "dataset=vizwiz", "method=mtv", "model=idefics2"],
        ["method=stv_gradient", "hydra.launcher=null", "tracker=none"],
    ],
)
def test_a_job_on_top_of_what_it_chooses_is_what_hydra_composes_whole(words):
    with initialize_config_dir(config_folder(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        command = loader.load_configuration("config", [], RunMode.MULTIRUN)
        composer = Composer(loader, command)
        composer.config([])
        assert composer.config(words) == configure_here(words)
        assert composer.config([]) == configure_here([]), "one job leaves nothing to the next"


def configure_here(words: list[str]) -> Config:
    return to_config(compose("config", [word for word in words if not word.startswith("hydra.")]))


@pytest.mark.parametrize("wrong", ["policy.stepz=3", "policy.steps=x", "+scan.shot=7", "method.m=[1]", "seed="])
def test_a_wrong_value_is_refused_in_the_same_words_on_top_and_whole(wrong):
    with initialize_config_dir(config_folder(), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))
        told = []
        for composed in (composer.config, configure_here):
            with pytest.raises((StvError, HydraException, OmegaConfBaseException)) as caught:
                composed(["method=stv", wrong])
            told.append(complaint(caught.value))
        assert told[0] == told[1] and told[0]
