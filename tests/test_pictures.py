"""A picture is looked at once in a stage, and its features stand exactly for its pixels, in every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from stv_exp.config import TemplateConfig, TrainConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example
from stv_exp.models.backbone import Backbone
from stv_exp.models.pictures import TAKEN, Pictures
from stv_exp.models.recent import Recent
from stv_exp.pipeline import measured
from stv_exp.stages.scan import scan
from stv_exp.stages.train import train
from tests.conftest import with_method
from tests.families import VISION_FAMILIES
from tests.test_families import example, load

APART = {"llava_onevision", "mllama"}  # one cuts a picture otherwise beside others, the other's layers attend to pixels


@pytest.fixture(params=VISION_FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def prompts(family, template):
    """Pictures of different sizes, some of them in two prompts."""
    examples = [example(i, True) for i in range(9)]
    shown = [(0, 1), (), (1,), (6, 0)]
    return [make_prompt(template, examples[6 + i % 3], [examples[d] for d in s]) for i, s in enumerate(shown)]


@pytest.fixture
def template() -> TemplateConfig:
    return TemplateConfig("", "<image>Q: {question}\nA: {answer}\n", "<image>Q: {question}\nA:", " {answer}")


@torch.inference_mode()
def logits(backbone: Backbone, batch) -> torch.Tensor:
    """Of the last token of each prompt."""
    return backbone.forward(batch, position_ids=backbone.family.positions(batch), use_cache=False).logits[:, -1]


def test_features_of_pictures_give_what_their_pixels_give(family, prompts):
    backbone = load(family)
    batch = backbone.encode(prompts)
    assert (TAKEN in batch, "pixel_values" in batch) == ((family not in APART), family in APART)
    torch.testing.assert_close(logits(backbone, batch), logits(backbone, backbone.prepare(prompts)), rtol=0, atol=1e-5)
    kept = logits(backbone, backbone.encode(prompts[::-1])).flip(0)
    torch.testing.assert_close(kept, logits(backbone, batch), rtol=0, atol=1e-5)


def test_features_are_generated_from_as_pixels_are(family, prompts):
    backbone = load(family)
    ids = backbone.model.generate(**backbone.prepare(prompts), max_new_tokens=3, do_sample=False)
    again = backbone.model.generate(**backbone.encode(prompts), max_new_tokens=3, do_sample=False)
    assert again.tolist() == ids.tolist()


@pytest.fixture
def looks(backbone):
    """How many pictures the vision tower is shown at each call."""
    assert backbone.pictures.shareable
    found: list[int] = []
    tower = backbone.model.model.vision_model

    def count(module, args, kwargs) -> None:
        found.append(len(kwargs["pixel_values"]))

    handle = tower.register_forward_pre_hook(count, with_kwargs=True)
    yield found
    handle.remove()


def test_a_scan_looks_at_each_picture_once(backbone, task, config, looks):
    with measured(backbone):
        scan(backbone, task, replace(config, scan=replace(config.scan, pairs=20, shots=4)))
    assert 12 < sum(looks) <= len(task.support) < 20 * 5


def test_a_training_looks_at_each_picture_once_however_many_epochs_it_has(backbone, task, config, looks):
    hificl = with_method(config, name="hificl", where="none", what="none", how="none", edit="hificl")
    for epochs in (1, 3):
        looks.clear()
        with measured(backbone):
            train(backbone, task, replace(hificl, train=TrainConfig(epochs=epochs)))
        assert sum(looks) == len(task.support)


def test_a_stage_looks_anew_so_that_its_seconds_do_not_depend_on_what_ran_before(backbone, task, config, looks):
    prompts = [make_prompt(config.dataset.template, query) for query in task.support[:5]]
    for _ in range(2):
        with measured(backbone):
            backbone.encode(prompts)
    assert looks == [5, 5]


def test_pictures_that_do_not_fit_are_looked_at_again_with_equal_results(backbone, task, config, looks):
    prompts = [make_prompt(config.dataset.template, query) for query in task.support[:4]]
    found = Pictures(backbone.model, backbone.processor, backbone.family)
    images = [image for prompt in prompts for image in prompt.images]
    roomy = found.features(images)
    found.recent = Recent(roomy[0].n_bytes + 1)
    looks.clear()
    again = [one for image in (*images, *images) for one in found.features([image])]
    assert looks == [1] * 8 and len(found.recent) == 1
    for one, other in zip((*roomy, *roomy), again, strict=True):
        torch.testing.assert_close(one.pooled, other.pooled, rtol=0, atol=1e-5)


def test_pictures_are_known_by_what_they_show(backbone, looks):
    indexed = Image.new("P", (32, 32), 1)
    red, green = indexed.copy(), indexed.copy()
    red.putpalette([0, 0, 0, 255, 0, 0])
    green.putpalette([0, 0, 0, 0, 255, 0])
    wide = Image.frombytes("RGB", (64, 16), Image.new("RGB", (32, 32), "blue").tobytes())
    different = [red, green, Image.new("RGB", (32, 32), "blue"), wide]
    backbone.pictures.recent.clear()
    looks.clear()
    backbone.pictures.features([*different, *(picture.copy() for picture in different)])
    assert sum(looks) == 4


def test_a_prompts_pictures_are_opened_once(backbone, config):
    opened = []

    def load() -> Image.Image:
        opened.append(1)
        return Image.new("RGB", (32, 32))

    backbone.encode([make_prompt(config.dataset.template, Example("one", (load,), "?", ("x",)))])
    assert len(opened) == 1
