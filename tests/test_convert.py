"""`python -m stv_exp.convert qwen_vl FOLDER`: the published layout becomes safetensors, or a sentence says why not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from stv_exp import convert
from stv_exp.config import ModelConfig
from stv_exp.errors import StvError
from stv_exp.models.loading import forget, load_backbone
from stv_exp.models.qwen_vl_v1 import weights
from tests.families import FAMILIES
from tests.qwen_vl_checkpoint import OLD, pickle_weights, write_qwen_vl

NEW = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_qwen_vl(folder)
    return folder


@pytest.fixture(scope="module")
def tensors(made) -> dict[str, Tensor]:
    return load_file(made / "model.safetensors")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """As a repository of Qwen-VL is: three pickled files and their index, `qwen.tiktoken`."""
    copy = tmp_path / "qwen"
    shutil.copytree(made, copy)
    pickle_weights(copy)
    return copy


def command(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["convert", *map(str, words)])
    return convert.main(), "".join(capsys.readouterr())


def loaded(folder: Path) -> dict[str, Tensor]:
    forget()
    return load_backbone(ModelConfig(str(folder), dtype="float32")).model.state_dict()


def test_a_converted_folder_is_loaded_with_the_same_weights(folder, tensors, monkeypatch, capsys):
    code, said = command(monkeypatch, capsys, "qwen_vl", folder)
    assert (code, "3 of 3 files converted" in said) == (0, True)
    found = loaded(folder)
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    old = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    assert index["metadata"] == old["metadata"], "sharded as it was"
    assert {n: OLD[NEW.index(f)] for n, f in index["weight_map"].items()} == old["weight_map"]
    assert (folder / "tokenizer.json").is_file()
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name]


def test_one_file_without_an_index_becomes_one_file(folder, tensors):
    for name in (*OLD, "pytorch_model.bin.index.json"):
        (folder / name).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    weights.convert(folder)
    assert load_file(folder / "model.safetensors").keys() == tensors.keys()
    assert not (folder / "model.safetensors.index.json").exists()


def test_tensors_that_share_memory_are_written_apart(folder, tensors):
    first = torch.load(folder / OLD[0], weights_only=True)
    name = next(name for name, tensor in first.items() if tensor.dim() == 2 and tensor.shape[0] == 3 * tensor.shape[1])
    torch.save({**first, name: first[name].T.contiguous().T}, folder / OLD[0])
    weights.convert(folder)
    assert torch.equal(loaded(folder)[name], tensors[name])


def test_a_stopped_conversion_leaves_whole_files_and_goes_on(folder, monkeypatch):
    """Until all are there the folder has no index, and so is not loaded."""
    save, written = weights.save_file, []

    def stopped(values: dict[str, Tensor], file: Path, **options: object) -> None:
        if written:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(file)
        save(values, file, **options)

    monkeypatch.setattr(weights, "save_file", stopped)
    with pytest.raises(OSError, match="No space"):
        weights.convert(folder)
    assert [name for name in NEW if (folder / name).exists()] == NEW[:1]
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name]
    with pytest.raises(StvError, match=r"no safetensors, and nothing else is read; .* stv_exp\.convert qwen_vl FOLDER"):
        loaded(folder)
    monkeypatch.setattr(weights, "save_file", save)
    first = (folder / NEW[0]).stat().st_mtime_ns
    assert "2 of 3 files converted" in weights.convert(folder)
    assert (folder / NEW[0]).stat().st_mtime_ns == first
    assert "0 of 3 files converted" in weights.convert(folder)


def test_a_file_that_was_fetched_anew_is_converted_anew(folder):
    weights.convert(folder)
    later = (folder / NEW[1]).stat().st_mtime + 10
    os.utime(folder / OLD[1], (later, later))
    assert "1 of 3 files converted" in weights.convert(folder)


def test_the_old_files_may_go_afterwards(folder):
    weights.convert(folder)
    for name in OLD:
        (folder / name).unlink()
    assert "0 of 3 files converted" in weights.convert(folder)


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_no_code_of_a_pickle_runs(folder, tmp_path):
    torch.save({"transformer.wte.weight": Trap(tmp_path / "run")}, folder / OLD[0])
    with pytest.raises(StvError, match=rf"{OLD[0]} was cut or holds more than weights .*; fetch it again"):
        weights.convert(folder)
    (folder / OLD[0]).write_bytes(pickle.dumps(Trap(tmp_path / "run"), protocol=2))
    with pytest.raises(StvError, match=rf"{OLD[0]} was cut or holds more than weights .*; fetch it again"):
        weights.convert(folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_file_that_was_cut_is_one_sentence(folder, share, monkeypatch, capsys):
    whole = (folder / OLD[1]).read_bytes()
    (folder / OLD[1]).write_bytes(whole[: int(share * len(whole))])
    code, said = command(monkeypatch, capsys, "qwen_vl", folder)
    assert code == 1 and f"{OLD[1]} was cut or holds more than weights" in said.replace("\n", " ")
    assert said.count("Error:") == 1 and "Traceback" not in said


def test_new_weights_that_were_cut_are_refused_by_the_loader(folder):
    weights.convert(folder)
    whole = (folder / NEW[2]).read_bytes()
    (folder / NEW[2]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StvError, match=r"cannot be loaded: .*not fully covered; check the folder or the hub id"):
        loaded(folder)


def test_weights_that_lack_tensors_are_not_drawn_at_random(folder):
    weights.convert(folder)
    with safe_open(folder / NEW[0], "pt") as file:
        lost = sorted(file.keys())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != NEW[0]}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        StvError, match=rf"its weights lack {len(lost)} tensors .*QWenLMHeadModel \({lost[0]}, for one\)"
    ):
        loaded(folder)


def without_tokenizer(folder: Path) -> None:
    (folder / "qwen.tiktoken").unlink()


def without_a_file(folder: Path) -> None:
    (folder / OLD[2]).unlink()


def without_weights(folder: Path) -> None:
    for name in (*OLD, "pytorch_model.bin.index.json"):
        (folder / name).unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))


def of_text_only(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "visual": None}))


def quantised(folder: Path) -> None:
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    named = {name.replace("c_attn.weight", "c_attn.qweight"): file for name, file in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": named}))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (without_tokenizer, "has no qwen.tiktoken, Qwen-VL's tokenizer; fetch it"),
        (without_a_file, f"{OLD[2]} is missing, though the index names it; fetch it"),
        (
            without_weights,
            "has neither pytorch_model.bin.index.json nor pytorch_model.bin; there is nothing to convert",
        ),
        (without_config, "has no config.json; give the folder of a Qwen-VL checkpoint"),
        (of_another_size, "where config.json asks for [32]; fetch both from one repository"),
        (of_text_only, "no section `visual`, so it is Qwen (v1) for text only"),
        (quantised, "lacks 3 of its tensors and has 3 that are none of Qwen-VL's"),
    ],
)
def test_a_folder_that_cannot_be_converted_is_one_sentence(folder, spoil, expected, monkeypatch, capsys):
    spoil(folder)
    code, said = command(monkeypatch, capsys, "qwen_vl", folder)
    assert code == 1 and expected in said.replace("\n", " ")
    assert not (folder / "model.safetensors.index.json").exists()


def test_a_checkpoint_of_qwen2_vl_is_told_from_qwen_vl(tmp_path, monkeypatch, capsys):
    FAMILIES["qwen2_vl"](tmp_path / "other")
    code, said = command(monkeypatch, capsys, "qwen_vl", tmp_path / "other")
    assert code == 1 and "holds a model of type qwen2_vl, not Qwen-VL (v1)" in said.replace("\n", " ")
    (tmp_path / "own").mkdir()
    write_qwen_vl(tmp_path / "own")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "own" / "model.safetensors")
    with pytest.raises(StvError, match=r"its weights have other shapes than its config\.json; fetch both"):
        loaded(tmp_path / "own")


def test_a_folder_without_its_tokenizer_is_one_sentence(folder):
    weights.convert(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "qwen.tiktoken").unlink()
    with pytest.raises(StvError, match=r"needs qwen\.tiktoken or tokenizer\.json and has neither"):
        loaded(folder)
