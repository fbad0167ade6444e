"""Every supported family: insertion is exact, batches do not matter, trees score as full forwards do.

Each test runs on a tiny random checkpoint of the family, loaded from a folder as from the hub.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from PIL import Image

from stv_exp import TaskVector
from stv_exp.config import ModelConfig, TemplateConfig
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.shapes import drawn
from stv_exp.data.task import Example
from stv_exp.models import scoring
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Insertion, inserted, last_positions
from stv_exp.models.loading import load_backbone
from stv_exp.models.prefix import prefill
from stv_exp.models.scorer import fastest_way, starts_late
from stv_exp.models.scoring import full, repeat, tree
from tests.families import FAMILIES, IMAGE_TOKENS, VISION_FAMILIES

EAGER = {"gemma2", "remote"}  # these take no other attention
UNMASKED = {"remote", "qwen3_next", "lfm2"}  # these refuse a mask of ours, or have layers with a state
LAYERS = {"mllama": (0, 2, 3), "qwen3_next": (1, 3, 4), "lfm2": (1, 2, 4)}  # those with heads, where some have none
S = 3
SITES = ("head", "attention", "mlp", "residual")
APART = [pytest.param(site, marks=pytest.mark.slow) if site in ("attention", "mlp") else site for site in SITES]


@cache
def load(family: str, dtype: str = "float32", chat: bool = False) -> Backbone:
    folder = Path(mkdtemp(prefix=f"{family}-"))
    FAMILIES[family](folder)
    attention = "eager" if family in EAGER else "sdpa"
    remote = family == "remote"
    return load_backbone(ModelConfig(str(folder), None, dtype, attention, chat, trust_remote_code=remote))


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def backbone(family) -> Backbone:
    return load(family)


def example(i: int, images: bool) -> Example:
    """Pictures of different sizes, and questions of different lengths."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    picture = Image.fromarray(drawn("support", 9)[1][i]).resize((32 + 16 * (i % 3), 32 + 16 * (i % 2)))
    shown = (picture.copy,) if images else ()
    return Example(f"e{i}", shown, " ".join(words[i % 3 : i]) + " cat", (" ".join(words[: 1 + i % 2]),))


@pytest.fixture
def template(family) -> TemplateConfig:
    image = "<image>" if family in VISION_FAMILIES else ""
    return TemplateConfig("", image + "Q: {question}\nA: {answer}\n", image + "Q: {question}\nA:", " {answer}")


@pytest.fixture
def prompts(family, template) -> list[Prompt]:
    """Three queries behind two, no and one demonstration: several images each, different lengths."""
    examples = [example(i, family in VISION_FAMILIES) for i in range(9)]
    return [make_prompt(template, examples[6 + i], examples[2 * i : 2 * i + s]) for i, s in enumerate((2, 0, 1))]


@torch.inference_mode()
def last_logits(backbone: Backbone, prompts: list[Prompt]) -> torch.Tensor:
    batch = backbone.encode(prompts)
    return backbone.forward(batch, position_ids=backbone.family.positions(batch)).logits[:, -1].float()


@torch.inference_mode()
def last_logits_in_parts(backbone: Backbone, prompts: list[Prompt]) -> torch.Tensor:
    """In the batches that a family's prompts are captured in, for dtypes in which another batch is another rounding."""
    found: dict[int, torch.Tensor] = {}
    for rows, part in backbone.family.parts(backbone.encode(prompts)):
        logits = backbone.forward(part, position_ids=backbone.family.positions(part)).logits
        found |= zip(rows, logits[:, -1].float(), strict=True)
    return torch.stack([found[row] for row in range(len(prompts))])


def insertion(backbone: Backbone, queries: int, site: str = "head", k: int = 5) -> Insertion:
    """Random vectors at up to `k` locations, S candidates a query."""
    pick, place = torch.Generator().manual_seed(3), backbone.site(site)
    locations = place.all_locations()[torch.randperm(len(place), generator=pick)[:k]]
    vectors = torch.randn(queries, S, len(locations), place.dim, generator=pick)
    return Insertion(locations, vectors, site=site)


def as_vector(chosen: Insertion, scale: float = 1.0) -> TaskVector:
    return TaskVector(chosen.locations, scale * chosen.values[0, 0], site=chosen.site)


def test_the_heads_are_found(backbone, family):
    heads = backbone.heads
    config = backbone.model.config.get_text_config(decoder=True)
    assert (heads.layers, heads.n_heads) == (LAYERS.get(family, (0, 1, 2)), config.num_attention_heads)
    assert heads.depth == config.get_text_config().num_hidden_layers
    own = next((d for name in ("head_dim", "kv_channels") if (d := getattr(config, name, None))), None)
    assert heads.dim == (own or config.hidden_size // heads.n_heads)
    ours = {"gpt2": "c_proj", "qwen_vl_v1": "c_proj", "remote": "c_proj", "lfm2": "self_attn.out_proj"}
    assert heads.pattern.endswith(ours.get(family, "self_attn.o_proj")) and "vision" not in heads.pattern


@pytest.mark.parametrize("site", SITES)
def test_inserting_a_rows_own_activations_changes_nothing(backbone, prompts, site):
    plain = last_logits(backbone, prompts)
    own = backbone.capture(backbone.encode(prompts), site)
    batch = backbone.encode(prompts)
    mask = batch["attention_mask"]
    last = last_positions(mask, *mask.shape, mask.device)[:, None]
    place = backbone.site(site)
    everywhere = Insertion(place.all_locations(), own.reshape(len(own), 1, len(place), place.dim), site=site)
    with inserted(place, everywhere, lambda: last):
        torch.testing.assert_close(last_logits(backbone, prompts), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_a_task_vector_changes_every_row_and_is_gone_afterwards(backbone, prompts, site):
    plain = last_logits(backbone, prompts)
    with as_vector(insertion(backbone, 1, site), 3).inserted(backbone.model):
        changed = last_logits(backbone, prompts)
    assert ((changed - plain).abs().amax(-1) > 1e-3).all()
    assert torch.equal(last_logits(backbone, prompts), plain)


@pytest.mark.parametrize("site", SITES)
def test_capture_of_a_padded_batch_equals_capture_of_each(backbone, prompts, site):
    together = backbone.capture(backbone.encode(prompts), site)
    for row, prompt in enumerate(prompts):
        alone = backbone.capture(backbone.encode([prompt]), site)[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("site", ["", *SITES])
def test_generation_of_a_padded_batch_equals_generation_of_each(backbone, prompts, site):
    vector = as_vector(insertion(backbone, 1, site)) if site else None
    together = backbone.generate(backbone.encode(prompts), 4, vector)
    assert together == [backbone.generate(backbone.encode([p]), 4, vector)[0] for p in prompts]


@pytest.mark.parametrize("when", ["prompt", "every_step"])
@pytest.mark.parametrize("site", APART)
def test_trees_and_repeated_prefixes_score_as_full_forwards(backbone, family, prompts, template, when, site):
    answers = [backbone.encode_answer(p) for p in prompts]
    many = insertion(backbone, len(prompts), site)
    expected = full(backbone, prompts, answers, many, when)
    ways = [repeat] if family in UNMASKED else [tree, repeat]
    for way in ways:
        found = way(backbone, prefill(backbone, prompts), answers, many, when)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_the_slope_behind_a_prefix_is_the_slope_of_the_full_forward(backbone, family, prompts, template, site):
    """What a search by gradient follows: left-padded queries of different length, all answer tokens."""
    answers = [backbone.encode_answer(p) for p in prompts]
    many, slopes = insertion(backbone, len(prompts), site), []
    way = partial(repeat if family in UNMASKED else tree, backbone, prefill(backbone, prompts))
    for score in (partial(full, backbone, prompts), way):
        values = many.values.clone().requires_grad_()
        score(answers, replace(many, values=values), "every_step").sum().backward()
        slopes.append(values.grad)
    torch.testing.assert_close(slopes[0], slopes[1], atol=2e-5, rtol=1e-4)
    assert slopes[0].abs().max() > 1e-3


def test_scores_of_the_insertion_are_what_generation_chooses(backbone, prompts):
    """The likeliest first token under a vector is the one that greedy decoding writes."""
    vector = as_vector(insertion(backbone, 1))
    with vector.inserted(backbone.model), torch.inference_mode():
        ids = backbone.model.generate(**backbone.encode(prompts), max_new_tokens=1, do_sample=False)[:, -1]
        assert torch.equal(last_logits(backbone, prompts).argmax(-1), ids)


def test_the_fastest_way_is_found(backbone, family, prompts, template):
    way = fastest_way(backbone, prompts, [backbone.encode_answer(p) for p in prompts])
    assert way == ("repeat" if family in UNMASKED else "tree")


@pytest.mark.parametrize("heedless", ["idefics2", "qwen2_vl", "gemma3", "llama"])
@pytest.mark.parametrize("broken", ["blind", "sighted", "shifted"])
def test_a_tree_that_the_model_does_not_heed_is_noticed(heedless, broken, monkeypatch):
    """As on a model or an attention that ignores our masks or positions."""
    backbone = load(heedless)
    image = "<image>" if heedless in VISION_FAMILIES else ""
    template = TemplateConfig(query=image + "Q: {question}\nA:")
    prompts = [make_prompt(template, example(i, heedless in VISION_FAMILIES)) for i in (3, 8)]
    masks, positions = scoring._tree_mask, scoring._positions
    if broken == "shifted":
        monkeypatch.setattr(scoring, "_positions", lambda *args: positions(*args) + 50)
    else:
        fill = torch.finfo(torch.float32).min if broken == "blind" else 0
        monkeypatch.setattr(scoring, "_tree_mask", lambda *args: _diagonal(masks(*args), fill))
    answers = [backbone.encode_answer(p) for p in prompts]
    rest = "full" if broken == "shifted" else "repeat"  # positions are shared with the repeated prefixes, masks not
    assert fastest_way(backbone, prompts, answers) == rest


def _diagonal(mask: torch.Tensor, fill: float) -> torch.Tensor:
    """All is seen, or nothing but each token itself."""
    changed = torch.full_like(mask, fill)
    own = torch.arange(mask.shape[2])
    changed[:, :, own, mask.shape[3] - mask.shape[2] + own] = 0
    return changed


@pytest.mark.parametrize("static", ["idefics2", "llama", "gemma2", "gemma3", "qwen2_vl"])
def test_static_caches_generate_the_same_with_a_vector(static):
    backbone = load(static)
    image = "<image>" if static in VISION_FAMILIES else ""
    template = TemplateConfig(query=image + "Q: {question}\nA:")
    prompts = [make_prompt(template, example(i, static in VISION_FAMILIES)) for i in (3, 8)]
    with as_vector(insertion(backbone, 1)).inserted(backbone.model):
        run = partial(backbone.model.generate, **backbone.encode(prompts), max_new_tokens=3, do_sample=False)
        assert torch.equal(run(cache_implementation="static"), run())


@pytest.mark.parametrize("split", ["idefics2", "idefics3", "smolvlm", "internvl"])
def test_pictures_are_not_split_into_tiles(split):
    """Though the checkpoint's own settings would."""
    backbone = load(split)
    prompt = make_prompt(TemplateConfig(query="<image>{question}"), example(8, True))
    ids = backbone.encode([prompt])["input_ids"]
    assert (ids == backbone.model.config.image_token_id).sum() == IMAGE_TOKENS


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close(family, prompts, template, dtype):
    exact, half = load(family), load(family, dtype)
    a, b = exact.capture(exact.encode(prompts)), half.capture(half.encode(prompts))
    assert b.dtype == getattr(torch, dtype), "kept in half precision"
    assert torch.cosine_similarity(a.flatten(1), b.float().flatten(1)).min() > 0.99
    plain = last_logits_in_parts(half, prompts)
    with TaskVector(half.heads.all_locations(), b[0].flatten(0, 1)).inserted(half.model):
        torch.testing.assert_close(last_logits_in_parts(half, prompts)[0], plain[0], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_chat_shows_the_same_pictures_and_words(family, prompts):
    if family == "remote":
        pytest.skip("its repository has no chat template")
    chat = load(family, chat=True)
    for prompt in prompts:
        text = chat.render(prompt)
        assert text.count(chat.family.image) == len(prompt.images)
        assert all(d.answers[0] in text for d in prompt.demonstrations) and prompt.query.question in text
    together = chat.capture(chat.encode(prompts))
    alone = torch.cat([chat.capture(chat.encode([p])) for p in prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("when", ["prompt", "every_step"])
@pytest.mark.parametrize("site", APART)
def test_branches_that_start_at_the_first_edited_layer_score_alike(backbone, family, prompts, template, when, site):
    """Whether each model takes it is settled when its way of scoring is; all that take trees do."""
    if family in UNMASKED:
        pytest.skip("it takes no trees")
    answers = [backbone.encode_answer(p) for p in prompts]
    assert (site, when) != (SITES[0], "prompt") or starts_late(backbone, prompts, answers), "asked once a family"
    for lowest in (1, 2):
        many = insertion(backbone, len(prompts), site, len(backbone.site(site)))
        high = many.locations[:, 0] >= lowest
        many = replace(many, locations=many.locations[high], values=many.values[:, :, high])
        prefixes = prefill(backbone, prompts)
        expected = tree(backbone, prefixes, answers, many, when)
        spent = backbone.token_forwards
        tree(backbone, prefixes, answers, many, when, late=True)  # computes the shared states, the next one uses them
        first, spent = backbone.token_forwards - spent, backbone.token_forwards
        found = tree(backbone, prefixes, answers, many, when, late=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert backbone.token_forwards - spent < first
