"""The presets at the papers' scale hold what was published, and run from end to end once they are made small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stv_exp.cli import configure
from stv_exp.config import Config, PolicyConfig
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.methods.method import Method
from stv_exp.methods.search import Search
from stv_exp.pipeline import run
from tests import official_episodes, official_vqa
from tests.qwen_vl_checkpoint import write_qwen_vl

PRESETS = ("paper_stv", "paper_mtv")
MODELS = {
    "idefics2": "HuggingFaceM4/idefics2-8b",
    "qwen_vl": "Qwen/Qwen-VL",
    "qwen_vl_chat": "Qwen/Qwen-VL-Chat",
    "qwen2_vl": "Qwen/Qwen2-VL-7B-Instruct",
}
SIZES = {"vizwiz": (200, 4319), "okvqa": (200, 5046), "dtd": (4000, 3000), "flowers": (290, 5076), "cub": (870, 5023)}
METRICS = {"vizwiz": "vqa_accuracy_qwen", "okvqa": "vqa_accuracy_qwen"}
SMALL = [
    *("model=tiny", "trainer=cpu", "tracker=none"),
    *("dataset.support=8", "dataset.eval=4", "dataset.max_new_tokens=2", "scan.pairs=6", "scan.shots=1"),
    *("policy.steps=3", "policy.samples=4", "policy.selection_draws=2", "policy.selection_items=2"),
]
FITTING = {"paper_stv": ["method.k=4", "method.m=2"], "paper_mtv": []}  # the tiny model has 16 heads


def composed(*overrides: str) -> Config:
    """The checked settings of a command line."""
    return configure(*overrides)


def vizwiz(root: Path) -> Path:
    return official_vqa.vizwiz(root, 12)


def cub(root: Path) -> Path:
    """The pictures, and published episodes of them where the preset looks for them."""
    official_episodes.annotations(official_episodes.cub(root) / "episodes", root)
    return root


@pytest.mark.parametrize("dataset", SIZES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_composes_on_each_model_and_benchmark_with_its_published_protocol(preset, model, dataset):
    config = composed(f"+experiment={preset}", f"model={model}", f"dataset={dataset}", "dataset.root=data")
    names = signatures(config)
    assert all((names.scan, names.bank, names.policy)), "no stage is left out, no weights are looked for"
    assert (config.model.name, config.model.dtype, config.trainer.accelerator) == (MODELS[model], "bfloat16", "cuda")
    asked = config.dataset
    assert (asked.name, asked.support, asked.eval, asked.max_new_tokens) == (dataset, *SIZES[dataset], 10)
    assert asked.metric == METRICS.get(dataset, "choice")
    assert asked.episode.annotations == ("" if dataset in METRICS else "data/episodes")
    assert (config.scan.pairs, config.scan.shots, config.insertion.when) == (100, 4, "every_step")
    assert (config.model.chat, config.model.trust_remote_code) == (model == "qwen_vl_chat", False)
    assert config.policy.threshold == (0.8 if (preset, model) == ("paper_mtv", "idefics2") else 0.0)


@pytest.mark.parametrize("dataset", SIZES)
def test_qwen_vl_is_asked_and_scored_in_mtvs_words(dataset):
    """Written here as MTV's code builds them; it puts a space before the answer whose likelihood is the reward."""
    template = composed(
        "+experiment=paper_stv", "model=qwen_vl", f"dataset={dataset}", "dataset.root=d"
    ).dataset.template
    shown = template.demonstration.format(question="Q", answer="a")
    if dataset in METRICS:
        assert (shown, template.query) == (
            f"<image>Q Answer:{' ' * (dataset == 'vizwiz')}a",
            "<image>{question} Answer:",
        )
    else:
        assert (shown, template.query) == ("Q a\n", "{question}")
    assert template.answer == " {answer}"


def test_stvs_search_is_the_papers():
    config = composed("+experiment=paper_stv", "model=qwen2_vl", "dataset=vizwiz")
    method = config.method
    assert (method.where, method.what, method.how) == ("sensitivity", "clusters", "reinforce")
    assert (method.sensitivity, method.k, method.m, config.bank.identity) == ("l2", 300, 32, False)
    assert config.policy == PolicyConfig(steps=600, queries=1, samples=32, lr=0.1, reward="all")


def test_mtvs_search_is_the_papers_and_its_selection_comes_on_top():
    config = composed("+experiment=paper_mtv", "model=qwen2_vl", "dataset=vizwiz")
    assert (config.method.where, config.method.what, config.method.how) == ("all", "mean", "bernoulli")
    policy = PolicyConfig(queries=1, samples=32, lr=0.1, reward="first", selection_draws=10, selection_items=50)
    how = Method.of(config).how
    assert isinstance(how, Search)
    paid = -(-how.final_evaluations(config.dataset.support, 1) // how.step_evaluations())
    assert (config.policy.steps - paid, paid) == (600, 16)
    assert vars(config.policy) == vars(policy) | {"steps": 616}


def test_the_command_line_wins_over_the_protocol():
    words = ["policy.threshold=0.5", "dataset.eval=7", "dataset.metric=vizwiz_accuracy", "trainer=cpu", "scan.shots=16"]
    config = composed("+experiment=paper_mtv", "model=idefics2", "dataset=vizwiz", *words)
    assert (config.policy.threshold, config.dataset.eval, config.scan.shots) == (0.5, 7, 16)
    assert (config.dataset.metric, config.trainer.accelerator) == ("vizwiz_accuracy", "cpu")


def test_without_a_preset_datasets_and_methods_keep_their_own_settings():
    config = composed("method=mtv", "model=idefics2", "dataset=cub")
    assert (config.policy.threshold, config.dataset.eval, config.dataset.episode.annotations) == (0.0, 1000, "")


def test_prompting_is_measured_under_the_same_protocol():
    config = composed("protocol=published", "method=few_shot", "model=idefics2", "dataset=okvqa")
    assert (config.method.shots, config.dataset.eval, config.dataset.metric) == (4, 5046, "vqa_accuracy_qwen")


@pytest.mark.parametrize("copy", [vizwiz, cub], ids=["vizwiz", "cub"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_small_preset_runs_from_scan_to_evaluation(preset, copy: Callable[[Path], Path], tmp_path):
    root = copy(tmp_path / "data")
    words = [f"dataset={copy.__name__}", f"dataset.root={root}", f"outputs={tmp_path}/outputs"]
    metrics = run(composed(f"+experiment={preset}", *SMALL, *FITTING[preset], *words), [])
    assert {"scan", "bank", "policy", "evaluation"} <= set(metrics["seconds"])
    assert metrics["n"] == 4 and 0 <= metrics["accuracy"] <= 1
    assert metrics["candidate_evaluations"] == 12, "of 3 x 4, the selection's included"


@pytest.mark.parametrize(("preset", "copy"), [("paper_stv", cub), ("paper_mtv", vizwiz)], ids=["stv-cub", "mtv-vizwiz"])
def test_a_small_preset_runs_on_the_papers_first_model(preset, copy: Callable[[Path], Path], tmp_path):
    (tmp_path / "qwen").mkdir()
    write_qwen_vl(tmp_path / "qwen")
    root, model = copy(tmp_path / "data"), ["model=qwen_vl", f"model.name={tmp_path}/qwen", "model.dtype=float32"]
    words = [f"dataset={copy.__name__}", f"dataset.root={root}", f"outputs={tmp_path}/outputs"]
    metrics = run(composed(f"+experiment={preset}", *SMALL[1:], *FITTING[preset], *words, *model), [])
    assert {"scan", "bank", "policy", "evaluation"} <= set(metrics["seconds"])
    assert metrics["n"] == 4 and metrics["candidate_evaluations"] == 12


def test_episodes_that_are_not_there_are_asked_for(tmp_path):
    root = official_episodes.cub(tmp_path / "data")
    words = ["dataset=cub", f"dataset.root={root}", f"outputs={tmp_path}/outputs"]
    config = composed("+experiment=paper_mtv", *SMALL, *words)
    with pytest.raises(StvError, match=r"dataset\.episode\.annotations=.*data/episodes has 0 files \*train\.json"):
        run(config, [])
