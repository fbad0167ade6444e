"""Insertion is exact: on every supported kind of decoder, batched, padded, nested, and gone afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from stv_exp import TaskVector
from stv_exp.data.prompts import make_prompt
from stv_exp.errors import StvError
from stv_exp.models.edits import captured, last_positions
from stv_exp.models.sites import find_heads
from tests.conftest import llama, qwen2


@pytest.fixture(params=["idefics2", "llama", "qwen2"])
def model_and_inputs(request, backbone, task, config) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """A model and a left-padded batch of prompts of different lengths (several images each for Idefics2)."""
    if request.param == "idefics2":
        shots = [task.support[1:4], task.support[1:2], ()]
        prompts = [make_prompt(config.dataset.template, task.support[0], s) for s in shots]
        return backbone.model, dict(backbone.encode(prompts))
    return {"llama": llama, "qwen2": qwen2}[request.param](), text_inputs()


@pytest.fixture(params=["llama", "qwen2"])
def text_model_and_inputs(request) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """A text decoder and a left-padded batch."""
    return {"llama": llama, "qwen2": qwen2}[request.param](), text_inputs()


def text_inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 99, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    mask[2, :7] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def own_activations(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """[B, L, H, D]."""
    mask = inputs["attention_mask"]
    with captured(find_heads(model), last_positions(mask, *mask.shape, mask.device)) as activations:
        model(**inputs)
    return torch.stack(activations, 1)


def random_vector(model: PreTrainedModel, k: int = 5) -> TaskVector:
    heads = find_heads(model)
    pick = torch.Generator().manual_seed(1)
    locations = heads.all_locations()[torch.randperm(len(heads), generator=pick)[:k]]
    return TaskVector(locations, 3 * torch.randn(k, heads.dim, generator=pick))


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits[:, -1]


def test_head_dim_is_read_from_the_projection():
    heads = find_heads(llama())
    assert (heads.n_layers, heads.n_heads, heads.dim) == (3, 6, 20)


def test_inserting_a_rows_own_activations_changes_nothing(model_and_inputs):
    model, inputs = model_and_inputs
    plain = logits(model, inputs)
    own = own_activations(model, inputs)
    for row in range(len(plain)):
        vector = TaskVector(find_heads(model).all_locations(), own[row].flatten(0, 1))
        with vector.inserted(model):
            torch.testing.assert_close(logits(model, inputs)[row], plain[row], atol=1e-5, rtol=1e-5)


def test_inserting_something_else_changes_every_row(model_and_inputs):
    model, inputs = model_and_inputs
    plain = logits(model, inputs)
    with random_vector(model).inserted(model):
        changed = logits(model, inputs)
    assert ((changed - plain).abs().amax(-1) > 1e-3).all()


def test_only_the_chosen_heads_at_the_last_token_are_overwritten(model_and_inputs):
    model, inputs = model_and_inputs
    vector = random_vector(model)
    seen = {}

    def look(layer):
        return lambda module, args: seen.__setitem__(layer, args[0].detach().clone())

    with vector.inserted(model):
        heads = find_heads(model)
        # Registered later, so they see the input after the insertion.
        hooks = [p.register_forward_pre_hook(look(i)) for i, p in enumerate(heads.modules)]
        logits(model, inputs)
        for hook in hooks:
            hook.remove()
    for (layer, head), expected in zip(vector.locations.tolist(), vector.vectors, strict=True):
        written = seen[layer].unflatten(-1, (heads.n_heads, heads.dim))[:, :, head]
        torch.testing.assert_close(written[:, -1], expected.expand_as(written[:, -1]))
        assert not torch.isclose(written[:, :-1], expected).all(-1).any()


def test_a_batch_equals_its_rows_one_by_one(text_model_and_inputs):
    model, inputs = text_model_and_inputs  # for Idefics2, test_backbone does it from the prompts
    vector = random_vector(model)
    with vector.inserted(model):
        together = logits(model, inputs)
        for row, mask in enumerate(inputs["attention_mask"]):
            real = {"input_ids": inputs["input_ids"][row][mask == 1][None]}
            torch.testing.assert_close(logits(model, real)[0], together[row], atol=1e-4, rtol=1e-4)


def test_padding_may_be_on_the_right():
    model = llama()
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = (ids > 0).long()
    with random_vector(model).inserted(model), torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).logits
        alone = model(input_ids=ids[1:, :2]).logits
    torch.testing.assert_close(padded[1, 1], alone[0, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("when", ["prompt", "every_step"])
def test_generation_edits_the_prompt_or_every_step(text_model_and_inputs, when):
    """Equal to greedy decoding by full forwards that write at the positions in question."""
    model, inputs = text_model_and_inputs
    vector = random_vector(model)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with vector.inserted(model, when=when):
        generated = model.generate(**inputs, **options)[:, -4:]
    mask = inputs["attention_mask"]
    for row in range(len(mask)):
        ids = inputs["input_ids"][row][mask[row] == 1]
        expected, prompt = [], len(ids)
        for step in range(4):
            edited = range(prompt - 1, prompt + step) if when == "every_step" else [prompt - 1]
            expected.append(_next_token(model, ids, vector, list(edited)))
            ids = torch.cat([ids, expected[-1][None]])
        assert generated[row].tolist() == [int(e) for e in expected]


@torch.no_grad()
def _next_token(model, ids, vector, positions):
    """A forward over all of `ids` with the vector written at `positions` by plain hooks of this test."""
    heads = find_heads(model)

    def hook(layer):
        def write(module, args):
            x = args[0].clone().unflatten(-1, (heads.n_heads, heads.dim))
            for (where, head), value in zip(vector.locations.tolist(), vector.vectors, strict=True):
                if where == layer:
                    x[:, positions, head] = value
            return (x.flatten(-2),)

        return write

    hooks = [p.register_forward_pre_hook(hook(i)) for i, p in enumerate(heads.modules)]
    logits = model(input_ids=ids[None]).logits[0, -1]
    for h in hooks:
        h.remove()
    return logits.argmax()


def test_add_mode_adds():
    model = llama()
    ids = {"input_ids": torch.tensor([[4, 5, 6]]), "attention_mask": torch.ones(1, 3)}
    own = own_activations(model, ids)[0].flatten(0, 1)
    everywhere = find_heads(model).all_locations()
    with TaskVector(everywhere, torch.zeros_like(own), mode="add").inserted(model):
        torch.testing.assert_close(logits(model, ids), model(**ids).logits[:, -1])
    with TaskVector(everywhere[:1], 2 * own[:1]).inserted(model):
        replaced = logits(model, ids)
    with TaskVector(everywhere[:1], own[:1], mode="add").inserted(model):
        torch.testing.assert_close(logits(model, ids), replaced)


def test_blocks_nest_and_end_also_on_error():
    model = llama()
    ids = {"input_ids": torch.tensor([[4, 5, 6]])}
    plain = logits(model, ids)
    outer, inner = random_vector(model), random_vector(model, 8)
    with outer.inserted(model):
        once = logits(model, ids)
        with inner.inserted(model):
            assert not torch.equal(logits(model, ids), once)
        assert torch.equal(logits(model, ids), once)
    with pytest.raises(ZeroDivisionError), outer.inserted(model):
        _ = 1 / 0
    assert torch.equal(logits(model, ids), plain)


def test_gradients_flow_through_an_insertion():
    model = llama()
    vectors = torch.zeros(1, 20, requires_grad=True)
    with TaskVector(torch.tensor([[0, 0]]), vectors).inserted(model):
        model(input_ids=torch.tensor([[4, 5, 6]])).logits.sum().backward()
    assert vectors.grad is not None and vectors.grad.abs().sum() > 0


def test_a_task_vector_survives_its_file(tmp_path):
    vector = TaskVector(torch.tensor([[0, 1], [2, 3]]), torch.randn(2, 20), metadata={"method": "stv", "seed": 3})
    vector.save(tmp_path / "v.safetensors")
    loaded = TaskVector.load(tmp_path / "v.safetensors")
    assert torch.equal(loaded.locations, vector.locations) and torch.equal(loaded.vectors, vector.vectors)
    assert (loaded.mode, loaded.metadata) == (vector.mode, vector.metadata)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"not a tensor file at all"])
def test_a_file_that_is_no_task_vector_is_refused_by_name(tmp_path, content):
    (tmp_path / "v.safetensors").write_bytes(content)
    with pytest.raises(StvError, match=r"v\.safetensors is not a saved TaskVector"):
        TaskVector.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("locations", "dim", "message"),
    [([[3, 0]], 20, "layer 3"), ([[0, 6]], 20, "head 6"), ([[0, 0]], 16, "head_dim 16")],
)
def test_a_vector_for_another_model_is_refused(locations, dim, message):
    with (
        pytest.raises(StvError, match=message),
        TaskVector(torch.tensor(locations), torch.zeros(1, dim)).inserted(llama()),
    ):
        pass


def test_impossible_vectors_are_refused():
    with pytest.raises(StvError, match="NaN"):
        TaskVector(torch.tensor([[0, 0]]), torch.tensor([[float("nan")]]))
    with pytest.raises(StvError, match="2 locations but 1 vectors"):
        TaskVector(torch.zeros(2, 2, dtype=torch.long), torch.zeros(1, 4))
    with pytest.raises(StvError, match="when='sometimes'"), random_vector(llama()).inserted(llama(), when="sometimes"):
        pass


@pytest.mark.parametrize("when", ["prompt", "every_step"])
def test_a_file_of_version_0_2_means_what_it_meant(when):
    """Heads replaced, and inserted when its search had it inserted."""
    old = TaskVector.load(Path(__file__).parent / f"files/task_vector_0.2_{when}.safetensors")
    assert (old.site, old.mode, old.weights, old.norm_preserving, old.when) == ("head", "replace", None, False, when)
    model, ids = llama(), {"input_ids": torch.tensor([[4, 5, 6]])}
    new = TaskVector(old.locations, old.vectors, when=when)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with old.inserted(model):
        generated = model.generate(**ids, **options)
    with new.inserted(model):
        assert torch.equal(model.generate(**ids, **options), generated)


def test_a_vectors_own_moment_holds_unless_told_otherwise(text_model_and_inputs):
    model, inputs = text_model_and_inputs
    vector = replace(random_vector(model), when="prompt")
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    found = []
    for when in (None, "prompt", "every_step"):
        with vector.inserted(model, when=when):
            found.append(model.generate(**inputs, **options))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_blend_lies_between_the_own_activation_and_the_vector():
    model, ids = llama(), {"input_ids": torch.tensor([[4, 5, 6]]), "attention_mask": torch.ones(1, 3)}
    own, vector = own_activations(model, ids)[0].flatten(0, 1), random_vector(model)
    heads = vector.locations[:, 0] * 6 + vector.locations[:, 1]
    weights = torch.linspace(0, 1, len(heads))
    mixed = (1 - weights[:, None]) * own[heads] + weights[:, None] * vector.vectors
    for row, (weight, value) in enumerate(zip(weights, mixed, strict=True)):
        one = {"locations": vector.locations[row : row + 1], "vectors": vector.vectors[row : row + 1]}
        with TaskVector(**one, mode="blend", weights=weight[None]).inserted(model):
            blended = logits(model, ids)
        with TaskVector(one["locations"], value[None]).inserted(model):
            torch.testing.assert_close(blended, logits(model, ids), atol=1e-5, rtol=1e-5)


def test_norm_preserving_edits_turn_an_activation_and_keep_its_length():
    model, ids = llama(), {"input_ids": torch.tensor([[4, 5, 6]]), "attention_mask": torch.ones(1, 3)}
    own = own_activations(model, ids)[0, 1, 2]
    vector = 7 * torch.randn(20, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([[1, 2]])
    with TaskVector(place, vector[None], norm_preserving=True).inserted(model):
        turned = logits(model, ids)
    with TaskVector(place, (vector / vector.norm() * own.norm())[None]).inserted(model):
        torch.testing.assert_close(turned, logits(model, ids), atol=1e-5, rtol=1e-5)


def test_a_vector_shows_itself_in_a_line():
    made = {"method": "stv", "dataset": "a/b"}
    vector = TaskVector(torch.tensor([[1]]), torch.zeros(1, 4), mode="add", site="mlp", metadata=made)
    assert repr(vector) == "TaskVector(1 x 4 at mlp, add, every_step, stv on a/b)"


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ({"locations": torch.tensor([[0, 1]]), "site": "mlp"}, r"locations of shape \[K, 1\]"),
        ({"locations": torch.tensor([[0]])}, r"locations of shape \[K, 2\]"),
        ({"locations": torch.tensor([[3]]), "site": "mlp"}, "uses layer 3, but the model has n_layers 3"),
        ({"locations": torch.tensor([[0]]), "site": "residual", "vectors": torch.zeros(1, 20)}, "hidden_size 20"),
        ({"locations": torch.tensor([[0]]), "site": "neuron"}, "The site 'neuron' is unknown"),
        ({"locations": torch.tensor([[0]]), "site": "mlp", "weights": torch.tensor([float("inf")])}, "weights"),
    ],
)
def test_a_vector_of_another_site_is_refused(vector, message):
    with (
        pytest.raises(StvError, match=message),
        TaskVector(**{"vectors": torch.zeros(1, 48), **vector}).inserted(llama()),
    ):
        pass


def test_a_compiled_model_is_edited_when_it_is_called_and_when_it_generates(text_model_and_inputs):
    model, inputs = text_model_and_inputs
    vector, options = random_vector(model), {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with vector.inserted(model):
        expected, generated = logits(model, inputs), model.generate(**inputs, **options)
    compiled = torch.compile(model, backend="eager")
    plain = logits(compiled, inputs)  # compiled before the vector comes
    with vector.inserted(compiled):
        torch.testing.assert_close(logits(compiled, inputs), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(compiled.generate(**inputs, **options), generated)
    torch.testing.assert_close(logits(compiled, inputs), plain)
    in_place = {"llama": llama, "qwen2": qwen2}["llama" if "Llama" in type(model).__name__ else "qwen2"]()
    in_place.compile(backend="eager")
    logits(in_place, inputs)
    with vector.inserted(in_place):
        torch.testing.assert_close(logits(in_place, inputs), expected, atol=1e-5, rtol=1e-5)


class Wrapper(torch.nn.Module):
    """As PEFT wraps a model: generation passes the wrapper by."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def get_base_model(self):
        return self.model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def test_a_wrapped_model_is_edited():
    model, ids = llama(), {"input_ids": torch.tensor([[4, 5, 6]])}
    vector, options = random_vector(model), {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with vector.inserted(model):
        expected, generated = logits(model, ids), model.generate(**ids, **options)
    with vector.inserted(Wrapper(model)) as wrapped:
        assert torch.equal(logits(wrapped, ids), expected)
        assert torch.equal(wrapped.get_base_model().generate(**ids, **options), generated)


def test_a_mask_may_come_by_position():
    model = llama()
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = (ids > 0).long()
    with random_vector(model).inserted(model), torch.no_grad():
        assert torch.equal(model(ids, mask).logits, model(input_ids=ids, attention_mask=mask).logits)


@pytest.mark.parametrize("when", ["prompt", "every_step"])
@pytest.mark.parametrize(
    "decoding",
    [
        {"use_cache": False},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 3},
        {"cache_implementation": "static"},
    ],
    ids=lambda decoding: next(iter(decoding)),
)
def test_a_vector_acts_on_the_same_tokens_however_they_are_decoded(when, decoding):
    """Whole sequences again and again, a prompt in chunks, several tokens verified at once."""
    model = llama()
    inputs = {"input_ids": torch.tensor([[4, 5, 6, 7, 4, 5, 6]]), "attention_mask": torch.ones(1, 7, dtype=torch.long)}
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    with random_vector(model).inserted(model, when=when):
        expected = model.generate(**inputs, **options)
        assert torch.equal(model.generate(**inputs, **options, **decoding), expected)
    assert "generate" not in model.__dict__, "and the model is left as it was"
