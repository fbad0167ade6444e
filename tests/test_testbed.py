"""The shipped model is a real Idefics2 that learns in context, and its recipe is reproducible and resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
)

from stv_exp.config import Config, DatasetConfig, ModelConfig
from stv_exp.data.drawing import IMAGE_SIZE
from stv_exp.data.languages import shape_tasks
from stv_exp.data.loader import load_task
from stv_exp.data.prompts import make_prompt
from stv_exp.data.shapes import drawn
from stv_exp.errors import StvError
from stv_exp.models.loading import load_backbone
from stv_exp.models.sources import TESTBED
from stv_exp.pretrain_config import PretrainConfig
from stv_exp.stages.evaluate import accuracy, evaluate
from stv_exp.testbed.curriculum import Curriculum, vocabulary
from stv_exp.testbed.emoji import drawings, emoji
from stv_exp.testbed.galleries import attributes, pixels
from stv_exp.testbed.model import build_processor
from stv_exp.testbed.pretrain import learning_rate, pretrain
from tests import emoji_package


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> PretrainConfig:
    """A training of 6 steps, two of each part, on few pictures."""
    steps = PretrainConfig(tower_steps=2, perception_steps=2, steps=6, checkpoint_every=2)
    return replace(
        steps,
        emoji=str(emoji_package.write(tmp_path_factory.mktemp("emoji"))),
        images=60,
        drawings=60,
        sequences=4,
        distinct_images=12,
    )


def dataset(task: str, **changes: object) -> DatasetConfig:
    config = DatasetConfig("shapes", "stv_exp.data.shapes", task, support=200, eval=30, max_new_tokens=2)
    return replace(config, **changes)


def measured(tasks: list[str], shots: int, **changes: object) -> float:
    """Mean accuracy over tasks of prompting the shipped checkpoint on the eval split."""
    backbone = load_backbone(ModelConfig(name="testbed"))
    found = []
    for name in tasks:
        config = Config(dataset=dataset(name, **changes))
        config.method.shots = shots
        config.trainer.batch_size = 60
        found.append(accuracy(evaluate(backbone, load_task(config), None, config)))
    return fmean(found)


def names(group: str) -> list[str]:
    return [t.name for t in shape_tasks().values() if t.group == group]


def test_the_folder_loads_like_any_hugging_face_model():
    model = AutoModelForImageTextToText.from_pretrained(TESTBED)
    assert isinstance(model, Idefics2ForConditionalGeneration)
    assert AutoProcessor.from_pretrained(TESTBED).tokenizer.convert_tokens_to_ids("what?") > 3
    assert 1e6 < model.num_parameters() < 4e6


def test_the_weights_are_safetensors_under_6_mb():
    files = {p.name for p in TESTBED.iterdir()}
    assert "model.safetensors" in files and not any(f.endswith((".bin", ".pt", ".pkl")) for f in files)
    assert (TESTBED / "model.safetensors").stat().st_size < 6e6


def test_zero_shot_it_knows_at_most_10_percent():
    assert measured([*names("ambiguous"), *names("unambiguous")], shots=0) <= 0.10


def test_unambiguous_tasks_reach_75_percent_at_4_shots():
    assert measured(names("unambiguous"), shots=4) >= 0.75


def test_ambiguous_tasks_need_many_shots():
    one, eight = (measured(names("ambiguous"), shots=s) for s in (1, 8))
    assert one <= 0.60 and eight >= one + 0.15


def test_the_many_are_not_solved_by_eight():
    many = names("many")[::50]  # one of each attribute
    four, eight = (measured(many, shots=s, eval=60) for s in (4, 8))
    assert four + 0.1 <= eight <= 0.8


def test_the_explicit_question_needs_no_demonstrations():
    assert measured(names("ambiguous")[:4], shots=0, explicit_question=True) > 0.75


def test_wrong_labels_cost_accuracy():
    task = names("ambiguous")[:4]
    wrong, right = (measured(task, shots=4, eval=60, label_noise=noise) for noise in (0.5, 0.0))
    assert wrong < right - 0.1


def test_easy_vqas_test_split_is_learned_in_context():
    easy = {"name": "easy_vqa", "loader": "stv_exp.data.easy_vqa"}
    tasks = ["easy-colour-1", "easy-shape-1"]
    assert measured(tasks, shots=4, **easy) > measured(tasks, shots=0, **easy) + 0.4


@pytest.fixture(scope="module")
def processor() -> Idefics2Processor:
    return build_processor(vocabulary())


def test_training_sequences_are_what_the_processor_makes_of_a_prompt(recipe, processor):
    """What pretraining builds from arrays equals the real processor's reading of the rendered prompt."""
    curriculum = Curriculum(processor, replace(recipe, noisy_sequences=0.0, explicit=0.0, explicit_many=0.0), seed=0)
    batch = curriculum._context("shapes", np.random.default_rng(0))
    decoded = processor.tokenizer.decode(batch.input_ids[0], skip_special_tokens=False)
    examples = [line for line in decoded.split("\n") if line]
    words = [line.rpartition("what?")[2] for line in examples]
    text = "".join(f"<image>what? {word}\n" for word in words)
    shown = [Image.fromarray(image) for image in drawn("train", recipe.images)[1][: len(words)]]
    again = processor(text=[text], images=[shown], return_tensors="pt")
    assert torch.equal(again["input_ids"][0], batch.input_ids[0])
    ours = pixels(curriculum.galleries["shapes"].pictures[: len(words)], processor)
    torch.testing.assert_close(again["pixel_values"][0], ours, rtol=0, atol=1e-5)


def test_half_of_the_sequences_are_of_the_many_and_perception_asks_for_none(recipe, processor):
    curriculum = Curriculum(processor, replace(recipe, sequences=400), seed=0)
    drawn = curriculum._draw_tasks("shapes", np.random.default_rng(0))
    assert 0.4 < fmean(task.group == "many" for task in drawn) < 0.6
    assert {task.group for task in curriculum._draw_tasks("easy", np.random.default_rng(0))} == {"unambiguous"}
    known = {curriculum.questions[task.name] for task in shape_tasks().values() if task.group != "many"}
    asked = Curriculum(processor, recipe, seed=0)._perception("shapes", np.random.default_rng(0))
    questions = asked.input_ids[:, :-1][asked.targets[:, :-1] >= 0].tolist()
    assert known & set(questions) and not set(questions) & set(curriculum.questions.values()) - known


def test_a_picture_alone_is_asked_for_what_its_family_has(recipe, processor):
    """Each row has the values of its own family's attributes, and none of another's."""
    known = (Curriculum(processor, recipe, seed=0).batch(0).values >= 0).numpy()
    families = np.array([family for family, *_ in attributes()])
    for row in known:
        (own,) = set(families[row])
        assert (row == (families == own)).all()
    counts = np.array([values for *_, values in attributes()])
    assert (Curriculum(processor, recipe, seed=0).batch(1).values.numpy() < counts).all()


def test_emoji_are_of_four_kinds_and_without_them_the_package_is_named(recipe, tmp_path):
    found = {kind: [path.name for path in paths] for kind, paths in emoji(recipe.emoji).items()}
    assert found == {"animals": ["0.png"], "food": ["2.png", "3.png"], "symbols": ["4.png"], "town": ["5.png"]}
    pictures, kinds = drawings(recipe.emoji, 8, np.random.default_rng(0))
    assert pictures.shape == (8, IMAGE_SIZE, IMAGE_SIZE, 3) and kinds.tolist() == [0, 1, 2, 3] * 2
    with pytest.raises(StvError, match="unpack the npm package emoji-datasource-google there"):
        drawings(str(tmp_path), 8, np.random.default_rng(0))


@pytest.mark.slow
def test_batches_depend_on_seed_and_index_alone(recipe, processor):
    a, b = (Curriculum(processor, recipe, seed=3) for _ in range(2))
    b.batch(4)
    for index in (0, 2, 5):
        assert all(torch.equal(x, y) for x, y in zip(a.batch(index), b.batch(index), strict=True))
    assert not torch.equal(a.batch(5).input_ids, Curriculum(processor, recipe, seed=4).batch(5).input_ids)


def test_noisy_answers_keep_their_true_target(recipe, processor):
    curriculum = Curriculum(processor, replace(recipe, noisy_sequences=1.0, max_noise=1.0), seed=0)
    newline = processor.tokenizer.eos_token_id
    wrong = total = 0
    for index in range(4, 21):
        batch = curriculum.batch(index)
        asked = (batch.targets >= 0) & (batch.targets != newline)
        shown = batch.input_ids[:, 1:][asked[:, :-1]]
        wrong += int((shown != batch.targets[asked]).sum())
        total += len(shown)
    assert 0.2 < wrong / total < 0.6


@pytest.mark.slow
def test_a_killed_training_resumes_where_it_was(recipe, tmp_path, monkeypatch):
    """Killed in the 5th of 6 steps and started again, it ends with the weights of an uninterrupted training."""
    whole, parts = (Config(job="pretrain", pretrain=replace(recipe, folder=str(tmp_path / n))) for n in ("a", "b"))
    pretrain(whole)
    made = Curriculum.batch
    with monkeypatch.context() as patch:
        patch.setattr(Curriculum, "batch", lambda self, i: made(self, i) if i < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(parts)
    pretrain(parts)
    a, b = (
        AutoModelForImageTextToText.from_pretrained(Path(c.pretrain.folder) / "weights").state_dict()
        for c in (whole, parts)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
def test_another_recipe_does_not_go_on_from_the_first_ones_weights(recipe, tmp_path):
    """In one folder, nor does a training whose state is damaged: it begins anew."""
    first = Config(job="pretrain", pretrain=replace(recipe, folder=str(tmp_path / "a")))
    alone, second = (replace(first, seed=1, pretrain=replace(recipe, folder=str(tmp_path / n))) for n in ("b", "a"))
    for config in (first, alone, second):
        pretrain(config)
    made, expected = ((tmp_path / n / "weights/model.safetensors").read_bytes() for n in ("a", "b"))
    assert made == expected
    for state in (tmp_path / "a").glob("checkpoints/*/last.ckpt"):
        state.write_bytes(b"cut")
    pretrain(second)
    assert (tmp_path / "a/weights/model.safetensors").read_bytes() == expected


def test_the_learning_rate_warms_up_in_each_part_and_ends_low():
    recipe = PretrainConfig()
    starts = [(0, recipe.tower_lr), (recipe.tower_steps, recipe.perception_lr)]
    starts += [(recipe.tower_steps + recipe.perception_steps, recipe.lr)]
    assert all(learning_rate(step, recipe) < rate / 50 for step, rate in starts)
    assert learning_rate(starts[2][0] - 1, recipe) == recipe.perception_lr
    assert learning_rate(starts[1][0] - 1, recipe) == pytest.approx(0.02 * recipe.tower_lr)
    assert learning_rate(recipe.steps - 1, recipe) == pytest.approx(0.02 * recipe.lr)


def test_a_prompt_of_the_testbed_has_no_unknown_words():
    processor = AutoProcessor.from_pretrained(TESTBED)
    for name in shape_tasks():
        config = Config(dataset=dataset(name, eval=4, support=4))
        task = load_task(config)
        prompt = make_prompt(config.dataset.template, task.evaluation[0], task.support)
        assert processor.tokenizer.unk_token_id not in processor.tokenizer(prompt.text)["input_ids"]
