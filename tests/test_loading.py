"""What is loaded is what was asked for, and what cannot be used is refused by name, in one sentence."""

from __future__ import annotations

import logging
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from stv_exp import TaskVector
from stv_exp.config import HeadsConfig, ModelConfig, TemplateConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import forget, load_backbone
from stv_exp.models.prefix import prefill
from stv_exp.models.scorer import fastest_way
from stv_exp.models.sites import find_heads
from stv_exp.models.sources import fingerprint
from tests.conftest import llama
from tests.families import FAMILIES

PATTERN = "transformer.h.{layer}.attn.c_proj"
TEXT = TemplateConfig("", "Q: {question}\nA: {answer}\n", "Q: {question}\nA:", " {answer}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of a remote-code model, a text model and a vision-language model."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("remote", "llama", "mistral", "idefics2")}
    for name, folder in made.items():
        FAMILIES[name](folder)
    return made


def question(text: str = "cat", images: tuple = ()) -> Example:
    return Example("q", images, text, ("one",))


def test_what_was_found_is_said(folders, caplog):
    with caplog.at_level(logging.INFO):
        load_backbone(ModelConfig(str(folders["llama"])))
    assert "3 layers x 6 heads of 20 at model.layers.{layer}.self_attn.o_proj" in caplog.text


def test_a_pattern_names_the_projections_of_remote_code(folders):
    remote = ModelConfig(str(folders["remote"]), attention="eager", trust_remote_code=True)
    found = load_backbone(remote).heads
    named = load_backbone(replace(remote, heads=HeadsConfig(PATTERN))).heads
    assert (named.n_layers, named.n_heads, named.dim, named.pattern) == (3, 4, 16, PATTERN)
    assert str(named) == str(found)


def test_remote_code_runs_only_when_asked_for_by_name(folders):
    with pytest.raises(StvError, match=r"code of its own, which runs only with model\.trust_remote_code=true"):
        load_backbone(ModelConfig(str(folders["remote"]), attention="eager"))


@pytest.mark.parametrize("pattern", ["model.layers.{layer}.nowhere", "model.layers.0.self_attn.o_proj"])
def test_a_pattern_that_matches_nothing_is_refused(folders, pattern):
    with pytest.raises(StvError, match=r"model\.heads\.pattern=.* matches nothing in LlamaForCausalLM"):
        load_backbone(ModelConfig(str(folders["llama"]), heads=HeadsConfig(pattern)))


def test_a_pattern_at_the_wrong_modules_is_refused(folders):
    with pytest.raises(StvError, match=r"LlamaForCausalLM cannot be read at model\.layers\.\{layer\}\.self_attn"):
        load_backbone(ModelConfig(str(folders["llama"]), heads=HeadsConfig("model.layers.{layer}.self_attn")))


def test_a_model_without_attention_is_refused_by_name():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 32, "state_size": 4}
    with pytest.raises(StvError, match="No attention output projections were found in MambaForCausalLM"):
        find_heads(MambaForCausalLM(MambaConfig(**sizes)))


def test_an_unknown_architecture_is_found_by_inspection():
    """Layers under another name than any family's."""
    model = llama()
    model.model.blocks = model.model.layers
    del model.model.layers
    assert find_heads(model).pattern == "model.blocks.{layer}.self_attn.o_proj"


def test_an_unreachable_hub_is_one_sentence():
    with pytest.raises(StvError, match=r"model\.name=owner/model cannot be loaded: the hub cannot be reached"):
        load_backbone(ModelConfig("owner/model"))


@pytest.fixture
def even_folder(folders, tmp_path) -> Path:
    """A checkpoint whose widths are multiples of 64, which 4-bit kernels ask for."""
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=tokenizer.pad_token_id)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantised_weights_take_insertions(even_folder, quantization):
    pytest.importorskip("bitsandbytes", reason="quantised loading is the extra `large`")
    backbone = load_backbone(ModelConfig(str(even_folder), quantization=quantization))
    prompt = make_prompt(TEXT, question("one two three"), [question("four five")])
    assert type(backbone.heads.modules[0]).__name__.startswith("Linear") and backbone.model.is_quantized
    own = backbone.capture(backbone.encode([prompt]))[0]
    batch = backbone.encode([prompt])
    with torch.inference_mode():
        plain = backbone.model(**batch).logits[:, -1]
        with TaskVector(backbone.heads.all_locations(), own.flatten(0, 1).float()).inserted(backbone.model):
            torch.testing.assert_close(backbone.model(**batch).logits[:, -1], plain)
    assert fastest_way(backbone, [prompt], [backbone.encode_answer(prompt)]) == "tree"


def test_weights_may_be_spread_over_devices(folders):
    pytest.importorskip("accelerate", reason="device maps are in the extra `large`")
    spread = load_backbone(ModelConfig(str(folders["llama"]), device_map="auto"))
    prompt = make_prompt(TEXT, question())
    whole = load_backbone(ModelConfig(str(folders["llama"])))
    torch.testing.assert_close(spread.capture(spread.encode([prompt])), whole.capture(whole.encode([prompt])))


def fused(backbone: Backbone) -> Backbone:
    """The same model whose attention uses the weights of its projections without calling them, as fused kernels do."""
    for layer in backbone.model.model.layers:
        projection = layer.self_attn.o_proj
        weight = torch.nn.Linear(projection.in_features, projection.out_features)
        weight.load_state_dict(projection.state_dict())
        layer.self_attn.forward = _bypass(layer.self_attn, projection, weight)
    return backbone


def _bypass(attention, projection, weight):
    forward = type(attention).forward

    def run(*args, **kwargs):
        attention.o_proj = weight
        try:
            return forward(attention, *args, **kwargs)
        finally:
            attention.o_proj = projection

    return run


def test_weights_that_bypass_hooks_are_refused(folders):
    """Both where they are read and where they are written; a no-op that looks like a result would be worse."""
    forget()
    backbone = fused(load_backbone(ModelConfig(str(folders["llama"]))))
    forget()
    batch = backbone.encode([make_prompt(TEXT, question())])
    with pytest.raises(StvError, match=r"Only 0 of 3 modules at .* bypass hooks"):
        backbone.capture(batch)
    vector = TaskVector(torch.tensor([[1, 2]]), torch.zeros(1, 20))
    with pytest.raises(StvError, match="bypass hooks"), vector.inserted(backbone.model):
        backbone.model(**batch)


def test_models_whose_prefix_cannot_be_kept_are_scored_by_full_forwards(monkeypatch, folders):
    """Remote code with caches of its own kind, tuples of keys and values."""
    config = ModelConfig(str(folders["remote"]), attention="eager", trust_remote_code=True)
    backbone = load_backbone(config)
    prompt = make_prompt(TEXT, question())
    model_class = type(backbone.model)
    forward = model_class.forward

    def legacy(self, *args, past_key_values=None, **kwargs):
        if past_key_values is not None:
            raise TypeError("tuples of (key, value) only")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(model_class, "forward", legacy)
    with pytest.raises(TypeError):
        prefill(backbone, [prompt])
    assert fastest_way(backbone, [prompt], [backbone.encode_answer(prompt)]) == "full"


def test_pictures_are_refused_by_a_text_model(folders, task):
    with pytest.raises(StvError, match=r"has images, but .* reads text only"):
        load_backbone(ModelConfig(str(folders["llama"]))).encode(
            [make_prompt(TEXT, question(images=task.support[0].images))]
        )


@pytest.mark.parametrize(("template", "places"), [("{question}", 0), ("<image><image>{question}", 2)])
def test_placeholders_and_pictures_must_agree(backbone, task, template, places):
    with pytest.raises(StvError, match=f"has {places} <image> placeholders for 1 images"):
        backbone.encode([make_prompt(TemplateConfig(query=template), task.support[0])])


def test_a_prompt_longer_than_the_context_is_refused(backbone, task, config):
    with pytest.raises(StvError, match=r"takes \d+ tokens with its answer, but tiny holds 512; lower method.shots"):
        backbone.encode([make_prompt(config.dataset.template, task.support[0], task.support[1:] * 4)])


def test_an_answer_longer_than_the_context_is_named_rather_than_the_query(backbone, task, config):
    prompt = make_prompt(config.dataset.template, task.support[0])
    with pytest.raises(StvError, match=r"tiny holds 512; lower dataset\.max_new_tokens to \d{3}\.") as raised:
        backbone.encode([prompt], room=1000)
    backbone.encode([prompt], room=int(str(raised.value).split()[-1].rstrip(".")))


def test_a_chat_without_a_template_is_refused(folders):
    config = ModelConfig(str(folders["remote"]), attention="eager", trust_remote_code=True, chat=True)
    with pytest.raises(StvError, match=r"model\.chat=true, but .* has no chat template"):
        load_backbone(config).encode([make_prompt(TEXT, question())])


@pytest.mark.parametrize("folder", ["gated", "offline"])
def test_a_broken_weight_file_is_one_sentence_whatever_its_folder_is_called(folders, tmp_path, folder):
    broken = tmp_path / folder
    shutil.copytree(folders["llama"], broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(StvError, match=r"cannot be loaded: .*header.*; check the folder or the hub id"):
        load_backbone(ModelConfig(str(broken)))


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "config.json", "model.safetensors"])
def test_a_model_is_another_when_any_of_its_files_is(folders, tmp_path, file):
    """Prompts depend on the tokenizer and the chat template as much as on weights."""
    copy = tmp_path / "copy"
    shutil.copytree(folders["llama"], copy)
    assert fingerprint(str(copy)) == fingerprint(str(folders["llama"])), "a folder's path does not count"
    fingerprint.cache_clear()
    with (copy / file).open("ab") as opened:
        opened.write(b" ")
    assert fingerprint(str(copy)) != fingerprint(str(folders["llama"]))


def test_the_model_before_is_gone_before_the_next_is_loaded(folders):
    gone = weakref.ref(load_backbone(ModelConfig(str(folders["llama"]))).model)
    load_backbone(ModelConfig(str(folders["mistral"])))
    assert gone() is None


def test_an_answer_is_tokenised_as_it_follows_its_prompt(folders):
    """The prompt's and the answer's tokens are those of both written together."""
    backbone = load_backbone(ModelConfig(str(folders["mistral"])))
    prompt = make_prompt(TEXT, question("two three"))
    ids = backbone.encode_answer(prompt).tolist()
    together = backbone.tokenizer(prompt.text + " one").input_ids
    assert together[-len(ids) :] == ids and together[: -len(ids)] == backbone.tokenizer(prompt.text).input_ids


def test_what_ends_an_answer_is_what_generation_stops_at(folders):
    """The newline that the template's demonstrations have behind it, or the model's own stop."""
    backbone = load_backbone(ModelConfig(str(folders["mistral"])))
    prompt = make_prompt(TEXT, question("two three"))
    answer = backbone.encode_answer(prompt)
    for template, end in ((TEXT, "\n"), (replace(TEXT, demonstration="{question} {answer}"), None)):
        ended = backbone.encode_answer(replace(prompt, template=template), ended=True)
        assert torch.equal(ended[: len(answer)], answer) and len(ended) == len(answer) + 1
        stop = backbone.model.generation_config.eos_token_id
        assert backbone.tokenizer.decode(ended[-1:]) == end if end else ended[-1] == stop
