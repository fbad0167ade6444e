"""Layers without attention: heads are counted where they are, under the layers' own numbers, or refused by name."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from stv_exp import TaskVector
from stv_exp.artefacts.scan import Scan
from stv_exp.config import Config, HeadsConfig, ModelConfig, TemplateConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example
from stv_exp.errors import StvError
from stv_exp.methods.method import Method
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Insertion
from stv_exp.models.families.recurrent import Recurrent
from stv_exp.models.loading import load_backbone, model_grid
from stv_exp.models.prefix import prefill
from stv_exp.models.scorer import Scorer, fastest_way
from stv_exp.models.scoring import full, tree
from stv_exp.models.sites import Site, find_heads, find_site
from stv_exp.stages.bank import build_bank
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.scan import scan
from stv_exp.stages.search import choose
from tests.conftest import llama, with_method
from tests.families import _LFM2, FAMILIES, _decoder
from tests.family_processors import Language, chatml

MLLAMA = "model.language_model.layers.{layer}.self_attn.o_proj"
TEXT = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")
NONE = {"where": "none", "what": "none", "how": "none"}
HYBRIDS = ("mllama", "qwen3_next", "lfm2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in HYBRIDS}
    for name, folder in made.items():
        FAMILIES[name](folder)
    return made


def mllama() -> torch.nn.Module:
    """Cross-attention at layers 3 and 6 of 8."""
    text = {"hidden_size": 48, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"intermediate_size": 32, "vocab_size": 64, "cross_attention_layers": [3, 6], "pad_token_id": 0}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8, "intermediate_layers_indices": [0], "vision_output_dim": 64}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    config = transformers.MllamaConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision)
    return transformers.MllamaForConditionalGeneration(config).eval()


def question(i: int) -> Example:
    words = ["one", "two", "three", "four", "five", "six"]
    return Example(f"q{i}", (), " ".join(words[: 1 + i]), (" ".join(words[: 1 + i % 3]),))


@pytest.mark.parametrize("pattern", ["", MLLAMA])
def test_every_layer_that_matches_counts_under_its_own_number(pattern):
    heads = find_heads(mllama(), pattern)
    assert (heads.layers, heads.depth, heads.n_heads) == ((0, 1, 2, 4, 5, 7), 8, 4)
    assert heads.shape == {"n_layers": 8, "n_heads": 4, "head_dim": 12}
    assert heads.all_locations()[:, 0].unique().tolist() == [0, 1, 2, 4, 5, 7] and len(heads) == 24
    assert str(heads).startswith("6 layers of 8 (none in layer 3, 6) x 4 heads of 12 at model.language_model.layers")
    assert heads.modules[3] is heads_module(mllama_layers=heads, layer=4)


def heads_module(mllama_layers: Site, layer: int) -> torch.nn.Module:
    return dict(zip(mllama_layers.layers, mllama_layers.modules, strict=True))[layer]


@pytest.mark.parametrize(("site", "layers"), [("attention", 6), ("mlp", 8), ("residual", 8)])
def test_the_other_sites_are_where_layers_have_them(site, layers):
    assert find_site(mllama(), site).n_layers == layers


def test_a_vector_acts_in_the_layer_that_it_names():
    model, ids = mllama(), {"input_ids": torch.tensor([[4, 5, 6]])}
    seen = {}
    with TaskVector(torch.tensor([[4, 2]]), torch.full((1, 12), 7.0)).inserted(model), torch.no_grad():
        for i, layer in enumerate(model.model.language_model.layers):
            if hasattr(layer, "self_attn"):
                keep = lambda module, args, i=i: seen.__setitem__(i, args[0][0, -1].clone())  # noqa: E731
                layer.self_attn.o_proj.register_forward_pre_hook(keep)
        model(**ids)
    assert [i for i, found in seen.items() if (found[24:36] == 7).all()] == [4]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ([3, 0], r"uses layer 3, where the model has none of .*; its layers with one are 0-2, 4-5, 7"),
        ([8, 0], "layer 8"),
    ],
)
def test_a_vector_at_a_layer_without_heads_is_refused(location, message):
    with pytest.raises(StvError, match=message):
        TaskVector(torch.tensor([location]), torch.zeros(1, 12)).check(find_heads(mllama()))


def _other_width(model: LlamaForCausalLM) -> None:
    model.model.layers[1].self_attn.o_proj = torch.nn.Linear(60, 48)


def _no_linear(model: LlamaForCausalLM) -> None:
    model.model.layers[1].self_attn.o_proj = torch.nn.Identity()


def _shared(model: LlamaForCausalLM) -> None:
    model.model.layers[2].self_attn = model.model.layers[0].self_attn


def _two_kinds(model: LlamaForCausalLM) -> None:
    attention = model.model.layers[1].self_attn
    attention.out_proj = attention.o_proj
    del attention.o_proj


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_width, r"the width of all heads of a layer differs \(120 in layer 0, 2; 60 in layer 1\)"),
        (_no_linear, "what stands there in layer 1 is no linear layer"),
        (_shared, "several layers share one module"),
        (_two_kinds, r"several kinds of attention \(.*o_proj in layer 0, 2; .*out_proj in layer 1\)"),
    ],
)
def test_layers_that_differ_are_refused_by_their_numbers(change, message):
    model = llama()
    change(model)
    with pytest.raises(StvError, match=message) as raised:
        find_heads(model)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def test_layers_of_different_head_counts_are_refused_by_their_numbers():
    model = llama()
    model.config.per_layer_config = {1: {"num_attention_heads": 3}}
    with pytest.raises(StvError, match=r"number of all heads of a layer differs \(6 in layer 0, 2; 3 in layer 1\)"):
        find_heads(model)


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize(("site", "n"), [("head", 12), ("attention", 3), ("mlp", None), ("residual", None)])
def test_the_locations_that_exist_are_counted_before_weights_are_loaded(folders, config, tmp_path, family, site, n):
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_bytes((folders[family] / "config.json").read_bytes())
    grid = model_grid(with_method(replace(config, model=ModelConfig(str(folder))), site=site))
    assert len(grid) == (n or {"mllama": 4, "qwen3_next": 5, "lfm2": 5}[family])


@pytest.mark.parametrize("family", HYBRIDS)
def test_layers_to_train_are_the_models_own_numbers_of_those_with_heads(folders, config, family):
    job = with_method(replace(config, model=ModelConfig(str(folders[family]))), **NONE, edit="hificl", site="head")
    *_, last = load_backbone(job.model).heads.layers
    for layer, refused in ((last, False), (last + 1, True)):
        chosen = replace(job, train=replace(job.train, layers=[layer]))
        with pytest.raises(StvError, match=rf"choose some of .*{last}, or none") if refused else nullcontext():
            Method.of(chosen).check_grid(model_grid(chosen))


def test_a_pattern_decides_what_is_counted(folders, config):
    pattern = "model.language_model.layers.{layer}.cross_attn.o_proj"
    model = ModelConfig(str(folders["mllama"]), heads=HeadsConfig(pattern))
    assert len(model_grid(replace(config, model=model))) == 4
    assert load_backbone(model).heads.layers == (1,)


def test_more_locations_than_exist_are_refused_where_no_weights_were_needed(folders, config):
    job = with_method(replace(config, model=ModelConfig(str(folders["mllama"]))), k=13)
    with pytest.raises(StvError, match=r"method\.k=13 is not within the 12 heads of .* \(3 layers x 4 heads\)"):
        Method.of(job).check_grid(model_grid(job))


def test_a_scan_starts_only_where_there_are_enough_locations(folders, config, task):
    job = with_method(replace(config, model=ModelConfig(str(folders["mllama"]))), k=13)
    with pytest.raises(StvError, match=r"method\.k=13 is not within the 12 heads"):
        scan(load_backbone(job.model), task, job)


def test_from_scan_to_evaluation_locations_carry_the_models_numbers(folders, config, task):
    """Of pictures and text, through a search by shared prefixes."""
    job: Config = with_method(replace(config, model=ModelConfig(str(folders["mllama"]))), k=12, m=2)
    backbone = load_backbone(job.model)
    found = scan(backbone, task, job)
    assert found.layers == [0, 2, 3] and found.grid == (3, 4)
    bank = build_bank(found, job)
    assert bank.locations[:, 0].unique().tolist() == [0, 2, 3] and bank.scores.shape == (4, 4)
    assert bank.scores[1].isnan().all() and bank.scores[[0, 2, 3]].isfinite().all()
    layer, head = bank.locations[0].tolist()
    torch.testing.assert_close(bank.scores[layer, head], bank.scores[[0, 2, 3]].max())
    chosen = choose(backbone, task, bank, job)
    assert chosen.scoring == "tree"
    vector = TaskVector(chosen.locations, chosen.vectors)
    assert len(evaluate(backbone, task, vector, job)) == 12


def test_a_scan_of_an_older_file_counts_from_zero():
    found = Scan(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5), [], [])
    places = torch.tensor([[2, 1]])
    assert torch.equal(found.numbered(places), places) and torch.equal(
        found.by_layer(found.deltas[0, ..., 0]), torch.zeros(3, 4)
    )


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2"])
def test_states_are_never_shared_by_the_branches_of_a_tree(folders, family):
    """By what the layers are, not by how far the results differ: rounding may hide that in half precision."""
    backbone = load_backbone(ModelConfig(str(folders[family])))
    prompts = [make_prompt(TEXT, question(i)) for i in (1, 4)]
    answers = [backbone.encode_answer(p) for p in prompts]
    assert fastest_way(backbone, prompts, answers) == "repeat"
    with pytest.raises(StvError, match="pass their states on"):
        tree(backbone, prefill(backbone, prompts), answers, everywhere(backbone, 2), "every_step")
    scorer = Scorer(backbone, 0)
    scorer.choose(prompts, answers)
    assert scorer.way == "repeat" and not scorer.late


def everywhere(backbone: Backbone, s: int) -> Insertion:
    locations = backbone.heads.all_locations()
    pick = torch.Generator().manual_seed(1)
    return Insertion(locations, torch.randn(1, s, len(locations), backbone.heads.dim, generator=pick))


def test_scoring_leaves_kept_states_as_they_were(folders):
    backbone = load_backbone(ModelConfig(str(folders["qwen3_next"])))
    prompts = [make_prompt(TEXT, question(i)) for i in (1, 4)]
    answers = [backbone.encode_answer(p) for p in prompts]
    scorer = Scorer(backbone, 0)
    first, before = (scorer.score(prompts, answers, everywhere(backbone, 3), "every_step") for _ in range(2))
    kept = copy.deepcopy([p.layers for p in scorer.prefixes.get(prompts)])
    for one in (0, 1):  # alone, nothing is padded or stacked: the tensors themselves go into the cache
        scorer.score(prompts[one : one + 1], answers[one : one + 1], everywhere(backbone, 1), "every_step")
    after = [p.layers for p in scorer.prefixes.get(prompts)]
    assert torch.equal(first, before)
    same = [
        torch.equal(a[n], b[n]) for x, y in zip(kept, after, strict=True) for a, b in zip(x, y, strict=True) for n in a
    ]
    assert same and all(same)


def test_pictures_may_be_few_many_or_none_in_one_batch(folders, task):
    """Rows of a Mllama batch are as they are alone, also behind text that comes before the first picture."""
    backbone = load_backbone(ModelConfig(str(folders["mllama"])))
    template = TemplateConfig("the user ", "<image>{question} {answer}\n", "{question}", " {answer}")
    shown = [*task.support[:3]]
    text = Example("text", (), "what is this", ("red",))
    prompts = [make_prompt(template, replace(text, id=f"t{i}"), shown[:i]) for i in range(4)]
    together = backbone.capture(backbone.encode(prompts))
    alone = torch.cat([backbone.capture(backbone.encode([p])) for p in prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert backbone.generate(backbone.encode(prompts), 3) == [
        backbone.generate(backbone.encode([p]), 3)[0] for p in prompts
    ]
    answers = [backbone.encode_answer(p) for p in prompts]
    many = everywhere(backbone, 3)
    scores = tree(backbone, prefill(backbone, prompts), answers, many, "every_step")
    torch.testing.assert_close(scores, full(backbone, prompts, answers, many, "every_step"), atol=1e-5, rtol=1e-5)


def test_branches_start_late_also_above_layers_that_do_not_run(folders):
    """Without pictures, Mllama passes its layers of cross-attention by."""
    backbone = load_backbone(ModelConfig(str(folders["mllama"])))
    prompts = [make_prompt(TEXT, question(i)) for i in (1, 4)]
    answers = [backbone.encode_answer(p) for p in prompts]
    high = everywhere(backbone, 3)
    kept = high.locations[:, 0] >= 2
    high = replace(high, locations=high.locations[kept], values=high.values[:, :, kept])
    late = tree(backbone, prefill(backbone, prompts), answers, high, "every_step", late=True)
    torch.testing.assert_close(late, full(backbone, prompts, answers, high, "every_step"), atol=1e-5, rtol=1e-5)


def test_a_site_whose_layers_do_not_run_without_pictures_is_refused(folders):
    backbone = load_backbone(ModelConfig(str(folders["mllama"])))
    with pytest.raises(StvError, match=r"Only 3 of 4 modules .* layers that only run with a picture"):
        backbone.capture(backbone.encode([make_prompt(TEXT, question(1))]), "residual")


def test_padding_that_would_enter_a_state_is_left_out(tmp_path):
    """LFM2's convolutions with a bias, and families that nobody has looked at."""
    _decoder("Lfm2ForCausalLM", Language(chatml(), bos="<s>"), **_LFM2, conv_bias=True)(tmp_path)
    backbone = load_backbone(ModelConfig(str(tmp_path)))
    assert isinstance(backbone.family, Recurrent)
    prompts = [make_prompt(TEXT, question(i)) for i in (1, 4, 1, 2)]
    together = backbone.capture(backbone.encode(prompts))
    alone = torch.cat([backbone.capture(backbone.encode([p])) for p in prompts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
