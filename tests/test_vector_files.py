"""A vector file may come from anyone: what is wrong with it is one sentence, and its words stay words in a card."""

from __future__ import annotations

import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from stv_exp import TaskVector
from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.chosen import Chosen
from stv_exp.errors import StvError
from stv_exp.hub import write_folder
from tests.conftest import llama

HEADS = {"n_layers": 3, "n_heads": 6, "head_dim": 20}
FIELDS = {
    "mode": "replace",
    "metadata": {},
    "weights": None,
    "site": "head",
    "norm_preserving": False,
    "when": "prompt",
}
METADATA = {
    "model": "owner/model",
    "revision": "main",
    "heads": HEADS,
    "pattern": "model.layers.{layer}.self_attn.o_proj",
    "dataset": "words/plural",
    "method": "stv",
    "seed": 0,
    "run": "abc",
    "when": "prompt",
    "operation": "a + b",
    "metrics": {"accuracy": 0.5, "n": 2},
    "made_from": [{"dataset": "words/plural"}],
}


def nested(times: int, inner: Any = 1) -> Any:
    for _ in range(times):
        inner = [inner]
    return inner


ODD = (None, [], [1], [None], ["a"], [[]], 0, -1, 10**400, 1.5, float("nan"), float("inf"), "", "x" * 10**5, "a\n# b")
ODD += (
    {},
    {"a": 1},
    {"n_layers": "3"},
    {"n_layers": [3]},
    {"": {"": {}}},
    True,
    False,
    "\ud800",
    "{layer}",
    nested(190),
)


def tensors(**own: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"locations": torch.tensor([[0, 1], [2, 3]]), "vectors": torch.ones(2, 20), **own}


def written(path: Path, fields: Any = FIELDS, **own: torch.Tensor) -> Path:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    save_file(tensors(**own), path, metadata={"TaskVector": text})
    return path


def use(path: Path) -> None:
    """Whatever may be done with a loaded vector."""
    vector = TaskVector.load(path)
    repr(vector)
    write_folder(vector + vector, path.parent / "folder", "owner/name")
    with vector.inserted(llama()) as model, torch.no_grad():
        model(input_ids=torch.tensor([[4, 5]]))


def refused(path: Path, message: str = "") -> str:
    with pytest.raises(StvError, match=message) as raised:
        use(path)
    text = str(raised.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 1000
    return text


@pytest.mark.parametrize("key", METADATA)
def test_metadata_of_any_type_is_used_or_refused_in_one_sentence(tmp_path, key):
    for i, odd in enumerate(ODD):
        path = written(tmp_path / f"{i}.safetensors", {**FIELDS, "metadata": {**METADATA, key: odd}})
        try:
            use(path)
        except StvError as error:
            assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 1000, (key, odd)


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_any_type_are_used_or_refused_in_one_sentence(tmp_path, field):
    for i, odd in enumerate(ODD):
        path = written(tmp_path / f"{i}.safetensors", {**FIELDS, field: odd})
        try:
            use(path)
        except StvError as error:
            assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 1000, (field, odd)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("heads", [1], r"metadata heads=\[1\], which is no dict\[str, int\]; mend that key"),
        ("pattern", 3, "metadata pattern=3, which is no str"),
        ("seed", True, "metadata seed=True, which is no int"),
        ("made_from", {"a": 1}, "metadata made_from=.* which is no list"),
        ("made_from", [{"model": 1}], "metadata model=1, which is no str"),
        ("metrics", [0.5], "metadata metrics="),
        ("pattern", "nowhere", "pattern=nowhere matches nothing in LlamaForCausalLM"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, key, value, message):
    path = written(tmp_path / "v.safetensors", {**FIELDS, "metadata": {**METADATA, key: value}})
    assert str(path) in refused(path, message) or key == "pattern"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"locations": torch.tensor([[True, False], [True, True]])}, "whole numbers as locations"),
        ({"locations": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}, "whole numbers as locations"),
        ({"locations": torch.tensor([[0, 1], [2, 3]], dtype=torch.complex64)}, "whole numbers as locations"),
        ({"locations": torch.tensor([[0, -1], [2, 3]])}, "count from 0"),
        ({"locations": torch.tensor([[0, 2**62], [2, 3]])}, "but the model has n_layers 3"),
        ({"locations": torch.tensor([[2**63, 1], [2, 3]], dtype=torch.uint64)}, "count from 0"),
        ({"locations": torch.tensor([0, 1])}, r"locations of shape \[K, 2\]"),
        ({"locations": torch.tensor(3)}, r"locations of shape \[K, 2\]"),
        ({"vectors": torch.full((2, 20), torch.nan)}, "NaN or infinite"),
        ({"vectors": torch.ones(2, 20, 1)}, "vectors of shape"),
        ({"vectors": torch.ones(2, 20, dtype=torch.int64)}, "no table of floating-point numbers"),
        ({"vectors": torch.ones(2, 20, dtype=torch.complex64)}, "no table of floating-point numbers"),
        ({"vectors": torch.ones(2, 20).to(torch.float8_e4m3fn)}, "no table of floating-point numbers"),
        ({"vectors": torch.ones(3, 20)}, "2 locations but 3 vectors"),
        ({"vectors": torch.ones(2, 0)}, "head_dim 0"),
        ({"weights": torch.ones(2, 1)}, "weights"),
        ({"mode": torch.ones(1)}, "mode twice"),
        ({"more": torch.ones(1)}, "a TaskVector has no more"),
    ],
)
def test_tensors_that_cannot_be_a_vector_are_refused(tmp_path, own, message):
    refused(written(tmp_path / "v.safetensors", **own), message)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_locations_of_any_whole_numbers_are_the_same_locations(tmp_path, dtype):
    """Though torch would read bytes as a mask."""
    vector = TaskVector.load(written(tmp_path / "v.safetensors", locations=tensors()["locations"].to(dtype)))
    assert vector.locations.dtype == torch.int64
    use(tmp_path / "v.safetensors")


DEEP = "[" * 10**5 + "]" * 10**5
TEXTS = {
    "[]": "no JSON object",
    "3": "no JSON object",
    "null": "no JSON object",
    '"text"': "no JSON object",
    "{": "Expecting property name",
    "": "Expecting value",
    '{"mode": "add", "mode": "add"}': "says a key twice",
    '{"metadata": {"model": "a", "model": "b"}}': "says a key twice",
    '{"metadata": ' + DEEP + "}": "nests too deep",
    '{"metadata": {"note": ' + "[" * 300 + "]" * 300 + "}}": "nests too deep",
    DEEP: "nests too deep",
    '{"metadata": {"seed": ' + "9" * 5000 + "}}": "Exceeds the limit",
    '{"locations": [[0, 1]]}': "locations twice",
    '{"colour": 1}': "a TaskVector has no colour",
    '{"__class__": 1}': "a TaskVector has no __class__",
    '{"norm_preserving": 1}': "norm_preserving is of type int, not bool",
}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:24])
def test_a_header_that_is_no_header_of_ours_is_refused(tmp_path, text):
    message = refused(written(tmp_path / "v.safetensors", text), re.escape(TEXTS[text]))
    assert "v.safetensors is not a saved TaskVector" in message


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 40) + b'{"__metadata__":{"TaskVector":["a"]}}   ',
        struct.pack("<Q", 200_000) + DEEP.encode(),
        random.Random(0).randbytes(4096),
    ],
)
def test_bytes_that_are_no_file_of_ours_are_refused(tmp_path, content):
    (tmp_path / "v.safetensors").write_bytes(content)
    refused(tmp_path / "v.safetensors", r"v\.safetensors is not a saved TaskVector")


def test_a_folder_and_nothing_are_refused(tmp_path):
    refused(tmp_path, "is not a saved TaskVector")
    refused(tmp_path / "nothing", "is not a saved TaskVector")


EVIL = (
    "# Heading\n## Another\r\n---\nlicense: mit\n---\n<script>alert(1)</script><img src=x onerror=y> | cell | `code`\n"
    "```\n[link](https://evil.example) ![x](y) www.evil.example a@evil.example $x$ ~~no~~ **bold** _it_"
    "\x1b[31m\u202e\ud800\0"
)


@pytest.mark.parametrize("key", ["model", "revision", "dataset", "method", "operation", "metrics", "made_from", "site"])
def test_nothing_in_the_metadata_is_markup_in_the_card(tmp_path, key):
    value = {"metrics": {EVIL: 0.5, "accuracy": 0.25}, "made_from": [{"method": EVIL, "made_from": [{"model": EVIL}]}]}
    metadata = {"dataset": "words/plural", **({} if key == "site" else {key: value.get(key, EVIL)})}
    columns, site = (1, EVIL) if key == "site" else (2, "head")
    vector = TaskVector(torch.zeros(1, columns, dtype=torch.long), torch.ones(1, 4), metadata=metadata, site=site)
    write_folder(vector, tmp_path, "owner/name")
    content = (tmp_path / "README.md").read_text(encoding="utf-8")
    card = ModelCard(content)
    assert card.data.license is None and card.data.library_name == "stv_exp"
    ours = re.compile(r"# Task vector: .*|## Metrics|## Use it|```(python)?|\|---\|---\|")
    marked = [line for line in card.text.splitlines() if line.lstrip().startswith(("#", "-", "```", "|-"))]
    assert all(ours.fullmatch(line) for line in marked)
    body = card.text.split("## Use it")[0]
    assert "Heading" in body
    for sign in ("<", ">", "`", "](", "https://", "www.", "a@", "$", "~~", "**", "_it_", "\x1b", "\u202e", "\0"):
        assert sign not in body, sign
    assert all(line.count("|") == 3 for line in body.splitlines() if line.startswith("|"))


def test_equal_vectors_are_equal_bytes(tmp_path):
    """Whatever the order of their metadata, the dtype of their locations and the strides of their vectors."""
    values = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    found = set()
    for i in range(20):
        keys = random.Random(i).sample(list(METADATA), len(METADATA))
        metadata = {key: METADATA[key] for key in keys}
        locations = torch.tensor([[0, 1], [2, 3]], dtype=(torch.int64, torch.int32)[i % 2])
        vectors = values.T if i % 3 else values.T.contiguous()
        TaskVector(locations, vectors, metadata=metadata, weights=torch.ones(2)).save(tmp_path / "v")
        found.add((tmp_path / "v").read_bytes())
    assert len(found) == 1
    loaded = TaskVector.load(tmp_path / "v")
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() in found


def test_equal_artefacts_of_every_kind_are_equal_bytes(tmp_path):
    made = {
        "bank": lambda: Bank(torch.zeros(1, 2), torch.ones(1, 2, 3), torch.ones(1, 2), scores=torch.ones(2, 2)),
        "chosen, of tensors that share memory": lambda: Chosen(
            *(torch.ones(1),) * 4, {"loss": [0.5], "reward": [1.0]}, 3, "tree"
        ),
    }
    for make in made.values():
        found = set()
        for _ in range(20):
            make().save(tmp_path / "a")
            found.add((tmp_path / "a").read_bytes())
        assert len(found) == 1 and type(make()).load(tmp_path / "a")


def test_what_json_does_not_know_is_refused_when_it_is_saved(tmp_path):
    for value, message in (
        (torch.ones(1), "what JSON cannot"),
        (nested(500), "nests too deep"),
        ({1: 2, "a": 3}, "JSON"),
    ):
        with pytest.raises(StvError, match=message):
            TaskVector(**tensors(), metadata={"note": value}).save(tmp_path / "v")


def test_sums_of_many_vectors_are_saved_with_the_ancestors_that_a_file_holds(tmp_path):
    total = one = TaskVector(**tensors(), metadata=dict(METADATA))
    for _ in range(300):
        total = total + one
    for _ in range(40):
        one = 0.5 * (one + one)
    for vector in (total, one):
        vector.save(tmp_path / "v")
        assert TaskVector.load(tmp_path / "v").metadata["made_from"] and (tmp_path / "v").stat().st_size < 10**6
    use(tmp_path / "v")
