"""Chat templates with a mode of their own: it can be set from the command line, and a run says when it should be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from stv_exp.check_config import checked
from stv_exp.cli import configure
from stv_exp.config import Config, ModelConfig, TemplateConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example
from stv_exp.diagnostics import diagnose
from stv_exp.errors import StvError
from stv_exp.identity import settings, signatures
from stv_exp.models.loading import load_backbone
from stv_exp.stages.evaluate import Prediction
from tests import forked
from tests.families import _IDEFICS, _QWEN3, _QWEN_TEXT, FAMILIES, _decoder
from tests.family_processors import Language, chatml, plain

# As Qwen3's: without thinking, the answer begins behind an empty thought.
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
THINKING = chatml().replace("assistant\n{% endif %}", "assistant\n" + SWITCH + "{% endif %}")
OFF = {"enable_thinking": False}
TEXT = TemplateConfig("", "{question} {answer}\n", "{question}", " {answer}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    special = ("<|im_start|>", "<think>", "</think>")
    path = tmp_path_factory.mktemp("thinking")
    _decoder("Qwen3ForCausalLM", Language(THINKING, special, **_QWEN_TEXT), **_QWEN3)(path)
    return path


@pytest.fixture
def prompt() -> Prompt:
    return make_prompt(TEXT, Example("q", (), "cat", ("one",)), [Example("d", (), "dog", ("two",))])


def test_the_templates_switch_is_in_every_prompt(folder, prompt):
    silent = load_backbone(ModelConfig(str(folder), chat=True, chat_arguments=OFF))
    asked = silent.render(prompt)
    thinking = load_backbone(ModelConfig(str(folder), chat=True)).render(prompt)
    assert asked == thinking + "<think>\n\n</think>\n\n" and "dog" in asked
    assert load_backbone(ModelConfig(str(folder), chat=True, chat_arguments={"enable_thinking": True})).render(
        prompt
    ) == (thinking)


def test_a_template_of_pictures_has_its_switch_too(tmp_path, task):
    FAMILIES["idefics2"](tmp_path)
    switched = plain("<image>").replace("Assistant:", "Assistant:{% if brief %} the{% endif %}")
    Language(switched, _IDEFICS[:3], bos="<s>").tokenizer().save_pretrained(tmp_path)
    brief = load_backbone(ModelConfig(str(tmp_path), chat=True, chat_arguments={"brief": True}))
    shown = make_prompt(TemplateConfig(query="<image>{question}"), task.support[0])
    assert brief.render(shown).endswith("Assistant: the") and len(brief.prepare([shown])["pixel_values"]) == 1


def test_models_under_other_arguments_are_other_models(folder):
    """They are kept and signed by their settings."""
    one = ModelConfig(str(folder), chat=True, chat_arguments=OFF)
    assert hash(one) == hash(replace(one, chat_arguments=None)) and one != replace(one, chat_arguments=None)
    assert load_backbone(one) is load_backbone(replace(one, chat_arguments=dict(OFF)))
    signed = {signatures(Config(model=model, **_rest())).scan for model in (one, replace(one, chat_arguments=None))}
    assert len(signed) == 2
    assert settings(Config(model=one, **_rest()))["model"]["chat_arguments"] == OFF


def _rest() -> dict[str, object]:
    job = configure("method=stv", "dataset=words", "dataset.task=antonym")
    return {name: getattr(job, name) for name in ("dataset", "method", "policy", "scan")}


@pytest.mark.parametrize(
    "override", ["+model.chat_arguments.enable_thinking=false", "model.chat_arguments={enable_thinking: false}"]
)
def test_the_command_line_sets_it_either_way(override):
    assert configure("model=qwen3", "model.chat=true", override).model.chat_arguments == OFF


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"chat_arguments": OFF}, r"model\.chat_arguments \(enable_thinking\) are read by a chat template only; set"),
        ({"chat": True, "chat_arguments": {"tokenize": True}}, r"model\.chat_arguments\.tokenize is set by the prompt"),
        ({"chat": True, "chat_arguments": 3}, r"model\.chat_arguments=3 are no names with values"),
        ({"chat": True, "chat_arguments": [1]}, "are no names with values"),
        ({"chat": True, "chat_arguments": {1: 2}}, "are no names with values"),
    ],
)
def test_arguments_that_nothing_reads_are_refused_before_anything_is_loaded(config, model, message):
    with pytest.raises(StvError, match=message):
        checked(replace(config, model=ModelConfig("tiny", **model)))


def test_an_argument_that_the_template_does_not_read_is_refused(folder):
    with pytest.raises(StvError, match=r"does not read model\.chat_arguments\.enable_thinkin;"):
        load_backbone(ModelConfig(str(folder), chat=True, chat_arguments={"enable_thinkin": False}))


def predictions(*texts: str, answer: str = "red") -> list[Prediction]:
    return [Prediction(str(i), "q", [answer], text, 0.0, []) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (("", " ", "", "red"), "Most answers (3 of 4) are empty: "),
        (("<think>", "<think> Okay, so", "red"), "Most answers (2 of 3) begin with <think>: "),
        (("<|channel|>analysis", "<|channel|>", "<think>"), "Most answers (2 of 3) begin with <|channel|>: "),
        (("[THINK]", "[THINK]so"), "Most answers (2 of 2) begin with [THINK]: "),
    ],
)
def test_answers_that_are_mostly_empty_or_one_tag_are_diagnosed(texts, sentence):
    (found,) = diagnose(None, predictions(*texts))
    assert found.startswith(sentence) and "model.chat_arguments" in found
    assert "\n" not in found and found.endswith(".")


@pytest.mark.parametrize("texts", [("", "red"), ("<think>", "<a>", "red"), ("x < y", "< y>"), (), ("red", "red")])
def test_other_answers_are_not(texts):
    assert diagnose(None, predictions(*texts)) == []


def test_a_tag_that_is_the_right_answer_is_none():
    assert diagnose(None, predictions("<b>", "<b>", answer="<b>")) == []


def test_a_run_says_that_its_answers_are_empty(folder, tmp_path):
    """The whole command, with a model that only ever writes padding."""
    silent = tmp_path / "model"
    shutil.copytree(folder, silent)
    weights = load_file(silent / "model.safetensors")
    weights["lm_head.weight"].zero_()
    save_file(weights, silent / "model.safetensors", metadata={"format": "pt"})
    command = ["model=hf", f"model.name={silent}", "model.dtype=float32"]
    command += ["model.chat=true", "+model.chat_arguments.enable_thinking=false", "method=few_shot", "method.shots=1"]
    command += ["dataset=words", "dataset.task=antonym", "dataset.support=4", "dataset.eval=3", "tracker=none"]
    command += ["dataset.max_new_tokens=1", "trainer.progress_bar=false", f"outputs={tmp_path}"]
    done = forked.run(tmp_path, *command)
    assert done.returncode == 0, done.text
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/metrics.json"))
    assert json.loads((run / "manifest.json").read_text())["settings"]["model"]["chat_arguments"] == OFF
    (said,) = json.loads((run / "metrics.json").read_text())["diagnostics"]
    assert said.startswith("Most answers (3 of 3) are empty: ")
