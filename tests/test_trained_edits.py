"""A trained edit is inserted, saved and refused as a task vector is, and its training is a stage as any other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import PreTrainedModel

from stv_exp import TaskVector
from stv_exp.config import Config, ModelConfig, TrainConfig, TrainerConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.methods.method import Method
from stv_exp.methods.registry import choices, find
from stv_exp.models.attached import shape_of
from stv_exp.models.attention import attended
from stv_exp.models.loading import load_backbone
from stv_exp.models.sites import find_site
from stv_exp.pipeline import run
from stv_exp.report.gallery import _history
from stv_exp.stages.estimate import estimate
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.train import Training, train
from stv_exp.trained_edit import TrainedEdit, fitted
from tests.conftest import llama, qwen2, with_method
from tests.families import FAMILIES

EDITS = [name for name in choices("edit") if name != "none"]
TRAINED = [name for name in EDITS if find("edit", name).losses]
ATTENDING = [name for name in EDITS if find("edit", name).attends]
OPTIONS = {"site": "mlp", "when": "every_step", "mode": "add", "weight": 1.0, "norm_preserving": False}
OPTIONS |= {"virtual": 3, "rank": 2, "unseen": False}


def edit_of(model: PreTrainedModel, name: str, scale: float = 0.5, **options: Any) -> TrainedEdit:
    """An edit of every layer with random parameters."""
    sites = lambda site: find_site(model, site)  # noqa: E731
    kind, shape = find("edit", name), shape_of(lambda site: find_site(model, site))
    chosen = {key: {"layers": list(shape.layers), **OPTIONS, **options}[key] for key in kind.knows}
    pick = torch.Generator().manual_seed(0)
    sizes = kind.shapes(shape, chosen)
    parameters = {key: scale * torch.randn(size, generator=pick) for key, size in sizes.items()}
    return TrainedEdit(name, parameters, chosen, {"heads": fitted(sites)})


def idle(edit: TrainedEdit) -> TrainedEdit:
    """The same with the parameters of no change."""
    kept = {name: torch.zeros_like(value) for name, value in edit.parameters.items()}
    if edit.edit == "i2cl":
        kept["scales"][..., 1] = 1
    return replace(edit, parameters=kept)


def batch() -> dict[str, Tensor]:
    """Three prompts of different lengths, padded on the left."""
    ids = torch.randint(1, 99, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :2], mask[2, :4] = 0, 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return model(**inputs, position_ids=positions).logits[:, -1]


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_acts_in_a_plain_script_and_is_gone_afterwards_also_on_error(name):
    model, inputs = llama(), batch()
    before, own = logits(model, inputs), model.config._attn_implementation
    edit = edit_of(model, name)
    with edit.inserted(model):
        assert not torch.allclose(logits(model, inputs), before, atol=1e-4)
    with pytest.raises(ZeroDivisionError), edit.inserted(model):
        raise ZeroDivisionError
    assert torch.equal(logits(model, inputs), before)
    assert model.config._attn_implementation == own and "generate" not in vars(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", sorted({*EDITS} - {"hificl"}))
def test_parameters_of_no_change_change_nothing(name):
    """Virtual pairs are none: as published, they take their share of attention whatever their values."""
    model, inputs = llama(), batch()
    with idle(edit_of(model, name)).inserted(model):
        torch.testing.assert_close(logits(model, inputs), before := logits(model, inputs))
    torch.testing.assert_close(logits(model, inputs), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [llama, qwen2])
@pytest.mark.parametrize("name", EDITS)
def test_a_batch_is_its_rows_and_a_cache_changes_nothing(name, make):
    model, inputs = make(), batch()
    with edit_of(model, name).inserted(model):
        together = logits(model, inputs)
        for row, mask in enumerate(inputs["attention_mask"].bool()):
            alone = {
                "input_ids": inputs["input_ids"][row, mask][None],
                "attention_mask": torch.ones(1, int(mask.sum())),
            }
            torch.testing.assert_close(together[row], logits(model, alone)[0], atol=1e-4, rtol=1e-4)
        options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
        texts = [model.generate(**inputs, **options, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", EDITS)
def test_half_precision_stays_close(name):
    model, inputs = llama(), batch()
    edit = edit_of(model, name)
    with edit.inserted(model):
        exact = logits(model, inputs)
    with edit.inserted(model.bfloat16()):
        torch.testing.assert_close(logits(model, inputs).float(), exact, atol=0.15, rtol=0.1)


@pytest.mark.parametrize("site", ["head", "attention", "mlp", "residual"])
@pytest.mark.parametrize("mode", ["replace", "add", "blend"])
@pytest.mark.parametrize("when", ["every_step", "prompt"])
def test_learned_vectors_are_inserted_as_a_task_vector_is(site, mode, when):
    model, inputs = llama(), batch()
    edit = edit_of(model, "learned", site=site, mode=mode, when=when, weight=1.0 if mode == "replace" else 0.5)
    locations = find_site(model, site).all_locations()
    values = edit.parameters["vectors"].flatten(0, -2)
    weights = None if mode == "replace" else torch.full((len(locations),), 0.5)
    vector = TaskVector(locations, values, mode, weights=weights, site=site, when=when)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with edit.inserted(model):
        ours = logits(model, inputs), model.generate(**inputs, **options)
    with vector.inserted(model):
        theirs = logits(model, inputs), model.generate(**inputs, **options)
    torch.testing.assert_close(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_one_edit_at_a_time_may_change_attention(tmp_path):
    model = llama()
    mimic, hificl = (edit_of(model, name) for name in ATTENDING[::-1])
    with (
        pytest.raises(StvError, match="The attention of LlamaForCausalLM is edited already"),
        hificl.inserted(model),
        mimic.inserted(model),
    ):
        pass
    with edit_of(model, "live").inserted(model), hificl.inserted(model):
        assert torch.isfinite(logits(model, batch())).all()


def test_lora_is_refused_on_top_of_peft_and_without_it(monkeypatch):
    model, inputs = llama(), batch()
    edit, before = edit_of(model, "lora"), logits(model, inputs)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with edit.inserted(model), pytest.raises(StvError, match="is adapted by peft already"), edit.inserted(model):
        pass
    assert torch.equal(logits(model, inputs), before) and not hasattr(model, "peft_config")
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    own = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), llama())
    with pytest.raises(StvError, match="is adapted by peft already"), edit.inserted(own):
        pass
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StvError, match=r"pip install 'stv_exp\[peft\]'"), edit_of(llama(), "lora").inserted(llama()):
        pass


@pytest.mark.parametrize("name", ATTENDING)
def test_attention_that_the_registry_does_not_reach_is_refused(name, tmp_path):
    FAMILIES["remote"](tmp_path / "model")
    config = ModelConfig(str(tmp_path / "model"), attention="eager", trust_remote_code=True)
    model = load_backbone(config).model
    expected = "has attention of its own that transformers' registry does not reach"
    with pytest.raises(StvError, match=expected), edit_of(model, name).inserted(model):
        pass


def test_attention_with_sinks_is_refused_and_not_taken_for_one_without():
    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(StvError, match="Module has attention sinks; choose an edit that leaves attention alone"):
        attended(torch.nn.Module(), q, q, q, None, s_aux=torch.zeros(2))


@pytest.mark.parametrize("name", EDITS)
def test_a_file_brings_the_same_edit_back(name, tmp_path):
    model, inputs = llama(), batch()
    edit = edit_of(model, name)
    edit.save(tmp_path / "a.safetensors")
    again = TrainedEdit.load(tmp_path / "a.safetensors")
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with edit.inserted(model):
        before = logits(model, inputs)
    with again.inserted(model):
        assert torch.equal(logits(model, inputs), before)
    assert name in repr(again)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_for_another_model_or_of_another_kind_is_refused(name, tmp_path):
    edit = edit_of(llama(), name)
    with pytest.raises(StvError, match=rf"The {name} edit was made for .*n_layers 3"), edit.inserted(qwen2()):
        pass
    with pytest.raises(StvError, match=rf"The {name} edit has parameters"), _cut(edit).inserted(llama()):
        pass
    edit.save(path := tmp_path / "edit.safetensors")
    with pytest.raises(StvError, match="is not a saved TaskVector"):
        TaskVector.load(path)


def _cut(edit: TrainedEdit) -> TrainedEdit:
    return replace(edit, parameters={name: value[:1] for name, value in edit.parameters.items()})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"edit": "live"}, "has options other than layers, site; train it anew"),
        ({"edit": "os.path"}, "os.path is no Trained"),
        ({"edit": "nowhere.Edit"}, "The edit nowhere.Edit is unknown; import the module that has it first"),
        ({"options": {"layers": ["0"]}}, "has options other than layers; train it anew"),
        ({"parameters": {"scales": torch.tensor([float("nan")])}}, "has scales that are no finite numbers"),
        ({"metadata": {"heads": 3}}, "has metadata heads=3"),
    ],
)
def test_what_a_file_says_is_checked(change, sentence):
    with pytest.raises(StvError, match=sentence):
        replace(edit_of(llama(), "i2cl"), **change)


@pytest.fixture
def trained(config) -> Config:
    """Two epochs of two batches on the tiny Idefics2."""
    train = TrainConfig(epochs=2, batch=6, shots=2, lr=0.05)
    data = replace(config.dataset, support=12, eval=4)
    return replace(config, dataset=data, train=train)


def with_edit(config: Config, name: str, **changes: object) -> Config:
    return with_method(config, name=name, where="none", what="none", how="none", edit=name, site="mlp", **changes)


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_trains_evaluates_and_keeps_its_edit(trained, name):
    config = with_edit(trained, name)
    metrics = run(config, [])
    assert run(config, []) == metrics, "looked up"
    assert set(metrics["seconds"]) == {"train", "evaluation", "total"} and metrics["n"] == 4
    (path,) = Path(config.outputs).glob("runs/*/trained_edit.safetensors")
    edit, folder = TrainedEdit.load(path), path.parent
    assert len(edit.history["loss"]) == 4 and edit.metadata["run"] == folder.name
    assert (folder / "history.csv").read_text().count("\n") == 5
    asked = json.loads((folder / "manifest.json").read_text())["settings"]
    assert asked["method"]["edit"] == name and asked["train"]["lr"] == 0.05 and "scan" not in asked
    passes = metrics["tokens"]["train"]
    assert metrics["token_forwards"]["train"] > passes, "a backward pass counts two"
    assert estimate("train", config).forwards <= metrics["forwards"]["train"]
    assert _history(folder / "history.csv") == {}, "a training has no rewards, which is no damage"


def test_methods_that_share_a_training_keep_their_own_names(trained):
    first = with_edit(trained, "live")
    second = replace(first, method=replace(first.method, name="mine"))
    run(first, [])
    run(second, [])
    paths = sorted(Path(first.outputs).glob("runs/*/trained_edit.safetensors"))
    made = {path.parent.name: TrainedEdit.load(path).metadata["method"] for path in paths}
    assert len([*Path(first.outputs).glob("stages/train-*/record.json")]) == 1
    assert made == {signatures(first).run: first.method.name, signatures(second).run: "mine"}


def test_one_pair_gives_icv_no_direction(trained):
    config = with_edit(trained, "icv")
    with pytest.raises(StvError, match=r"train.shots=1 leaves method.edit=icv one point"):
        Method.of(replace(config, train=replace(config.train, shots=1))).check()


def test_an_edit_that_is_not_trained_costs_its_start_alone_and_has_no_curve(trained):
    config = with_edit(trained, "icv")
    metrics = run(config, [])
    shots = config.train.shots
    assert metrics["forwards"]["train"] == 2 * -(-shots // config.trainer.batch_size), "with answers and without"
    assert metrics["token_forwards"]["train"] == metrics["tokens"]["train"], "nothing runs backward"
    (path,) = Path(config.outputs).glob("runs/*/trained_edit.safetensors")
    assert TrainedEdit.load(path).history == {} and not (path.parent / "history.csv").exists()
    more = replace(config, train=replace(config.train, shots=config.train.shots + 1))
    other = replace(config, train=replace(config.train, epochs=9, lr=0.9))
    assert signatures(more) != signatures(config) == signatures(other)


def test_signatures_follow_from_what_an_edit_reads(trained):
    one = with_edit(trained, "live")

    def changed(**values: object) -> bool:
        return signatures(replace(one, train=replace(one.train, **values))) != signatures(one)

    assert changed(lr=0.1) and changed(shots=3) and changed(layers=[1])
    assert not changed(noise=0.1) and not changed(rank=2)
    assert signatures(one).scan == "" and signatures(with_edit(trained, "mimic")).train != signatures(one).train


@pytest.mark.parametrize("name", TRAINED)
def test_a_killed_training_goes_on_bit_for_bit(trained, backbone, task, name, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("stv_exp.stages.checkpoint.EVERY", timedelta(0))
    caplog.set_level("INFO")
    task = task.held_out(4)
    config = with_edit(replace(trained, train=replace(trained.train, patience=2, epochs=4)), name)
    before = backbone.token_forwards
    whole = train(backbone, task, config)
    spent = backbone.token_forwards - before
    step = Training.training_step

    def killed(module: Training, *arguments: Any) -> None:
        if module.step == 5:
            raise ZeroDivisionError
        step(module, *arguments)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Training, "training_step", killed)
        train(backbone, task, config, folder=tmp_path)
    backbone.pictures.recent.clear()  # another process has seen none
    before = backbone.token_forwards
    parts = train(backbone, task, config, folder=tmp_path)
    assert "goes on at step 5" in caplog.text
    assert backbone.token_forwards - before == spent, "start and teacher, made twice, count once"
    assert parts.history == whole.history
    assert all(torch.equal(parts.parameters[key], value) for key, value in whole.parameters.items())


def test_training_stops_where_validation_gains_no_more_and_keeps_the_best(trained, backbone, task):
    task = task.held_out(4)
    few = replace(trained.train, epochs=20, lr=2.0, patience=1, tokens="answer")
    config = with_edit(replace(trained, train=few), "learned")
    edit = train(backbone, task, config)
    curve = edit.history["validation_loss"]
    assert len(curve) < 20 * (len(task.support) // 6)
    template = config.dataset.template
    queries = [make_prompt(template, query) for query in task.validation]
    with edit.inserted(backbone.model), torch.no_grad():
        found = backbone.model(**backbone.encode(queries)).logits[:, -1]
    wanted = torch.cat([backbone.encode_answer(query) for query in queries])
    assert torch.nn.functional.cross_entropy(found, wanted).item() == pytest.approx(min(curve), rel=1e-3)


def test_noise_is_drawn_anew_each_step_and_the_same_each_time(trained, backbone, task):
    noisy = with_edit(replace(trained, train=replace(trained.train, noise=0.5, epochs=1)), "i2cl")
    quiet = with_edit(replace(trained, train=replace(trained.train, noise=0.0, epochs=1)), "i2cl")
    one, two, none = (train(backbone, task, config).history["loss"] for config in (noisy, noisy, quiet))
    assert one == two != none


def test_labels_are_compared_under_the_edit(trained, backbone, task):
    """By whole forwards, as the label that a generation names where answers are one token."""
    config = with_edit(replace(trained, dataset=replace(trained.dataset, max_new_tokens=1)), "mimic")
    edit = train(backbone, task, config)
    likely = replace(config, dataset=replace(config.dataset, metric="likelihood"))
    with _restricted(backbone, task, config):
        named = [p.prediction for p in evaluate(backbone, task, edit, config)]
    assert [p.prediction for p in evaluate(backbone, task, edit, likely)] == named


@contextmanager
def _restricted(backbone: Any, task: Any, config: Config) -> Iterator[None]:
    """Logits of anything but the task's labels are out of the question."""
    asked = make_prompt(config.dataset.template, task.support[0])
    named = [replace(asked, query=replace(asked.query, answers=(label,))) for label in task.labels]
    tokens = torch.stack([backbone.encode_answer(prompt)[0] for prompt in named])

    def keep(_: Any, args: Any, output: Tensor) -> Tensor:
        return torch.full_like(output, -1e4).index_copy(-1, tokens, output[..., tokens])

    handle = backbone.model.get_output_embeddings().register_forward_hook(keep)
    yield
    handle.remove()


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("live", {"batch": 13}, "train.batch=13 exceeds the 12 support examples"),
        ("hificl", {"patience": 1}, "train.patience=1 stops by the loss on validation examples"),
        ("i2cl", {"layers": [2]}, r"train.layers=\[2\] are not different layers of tiny .* choose some of 0-1, or"),
        ("learned", {"lr": 1e2, "clip": 0.0, "weight_decay": 1.0, "epochs": 60}, "is NaN or infinite; lower train.lr"),
        ("lora", {"rank": 0}, "train.rank=0 leaves LoRA nothing to train"),
        ("live", {"shots": 12}, "12 demonstrations were asked for, but the support split"),
        ("icv", {"shots": 13}, "train.shots=13 exceeds the 12 support examples"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(trained, name, changes, sentence):
    config = with_edit(replace(trained, train=replace(trained.train, **changes)), name)
    if name == "learned":
        config = replace(config, insertion=replace(config.insertion, mode="add", weight=1e3))
    with pytest.raises(StvError, match=sentence):
        run(config, [])


def test_a_context_too_short_for_the_teacher_says_how_many_shots_would_do(trained):
    few = replace(trained, dataset=replace(trained.dataset, support=90), trainer=TrainerConfig(batch_size=1))
    config = with_edit(replace(few, train=replace(trained.train, shots=80)), "mimic")
    with pytest.raises(StvError, match=r"A prompt of 80 demonstrations .* lower method.shots, scan.shots or train.sh"):
        run(config, [])


def test_an_edit_stands_instead_of_the_three_choices(trained):
    from stv_exp.methods.method import Method

    both = with_method(trained, edit="i2cl")
    with pytest.raises(StvError, match="use where=none, what=none and how=none: what is trained is the edit"):
        Method.of(both).check()
    with pytest.raises(StvError, match=r"method\.edit=live adds one vector a layer"):
        Method.of(with_method(with_edit(trained, "live"), site="head")).check()
    with pytest.raises(StvError, match=r"method\.edit=hifi is unknown; did you mean hificl"):
        Method.of(with_method(trained, edit="hifi"))
