"""Turns published weights of Qwen-VL (pickled `pytorch_model*.bin`) into safetensors, file by file, in their folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from stv_exp.disk.files import read_json, replaced_file, write_json
from stv_exp.disk.locks import locked
from stv_exp.errors import StvError
from stv_exp.models.qwen_vl_v1.config import QWenConfig
from stv_exp.models.qwen_vl_v1.model import QWenLMHeadModel
from stv_exp.models.qwen_vl_v1.vocabulary import FILE, build_tokenizer, read_ranks
from stv_exp.progress import Meter

_ONE, _MANY = "pytorch_model.bin", "pytorch_model.bin.index.json"
_INDEX = "model.safetensors.index.json"
Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Shard:
    """A file of weights, old and new, and the names of the tensors in it."""

    old: Path
    new: Path
    names: frozenset[str]

    @property
    def done(self) -> bool:
        """New files appear whole or not at all; one that is older than its source is of another one."""
        if not self.new.is_file():
            return False
        return not self.old.is_file() or self.new.stat().st_mtime >= self.old.stat().st_mtime


def convert(folder: Path) -> str:
    """Write what is missing of the new files, and say what there is now.

    A run that was stopped goes on from the last whole file. Raises `StvError` where the folder is no Qwen-VL.
    """
    shapes = _shapes(_config(folder))
    shards = _shards(folder, shapes)
    with locked(folder):
        _write_tokenizer(folder)
        missing = [shard for shard in shards if not shard.done]
        with Meter("converting", len(missing)) as meter:
            for shard in missing:
                _write(shard, shapes)
                meter.advance()
        if (folder / _MANY).is_file():
            _write_index(folder, shards)
    return f"{folder}: {len(missing)} of {len(shards)} files converted, the others were; the .bin files can go."


def _config(folder: Path) -> QWenConfig:
    """Raises `StvError` for another model, first of all for Qwen2-VL and later ones."""
    if not (folder / "config.json").is_file():
        raise StvError(f"{folder} has no config.json; give the folder of a Qwen-VL checkpoint.")
    found = read_json(folder / "config.json") or {}
    if found.get("model_type") != QWenConfig.model_type:
        raise StvError(
            f"{folder} holds a model of type {found.get('model_type')}, not Qwen-VL (v1), whose type is "
            f"{QWenConfig.model_type}; such models are loaded as they are, by model.name."
        )
    return QWenConfig.from_pretrained(folder)


def _shapes(config: QWenConfig) -> Shapes:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in QWenLMHeadModel(config).state_dict().items()}


def _shards(folder: Path, shapes: Shapes) -> list[Shard]:
    """Raises `StvError` where there are no old weights, or they are not those of the model."""
    if not (folder / _MANY).is_file():
        if not (folder / _ONE).is_file():
            raise StvError(f"{folder} has neither {_MANY} nor {_ONE}; there is nothing to convert.")
        return [Shard(folder / _ONE, folder / "model.safetensors", frozenset(shapes))]
    places = (read_json(folder / _MANY) or {}).get("weight_map") or {}
    _check_names(folder / _MANY, set(places), set(shapes))
    files = sorted({*places.values()})
    return [
        Shard(folder / file, folder / _renamed(file), frozenset(name for name in places if places[name] == file))
        for file in files
    ]


def _renamed(file: str) -> str:
    return file.replace("pytorch_model", "model", 1).removesuffix(".bin") + ".safetensors"


def _check_names(file: Path, found: set[str], expected: set[str]) -> None:
    if found == expected:
        return
    some = min((expected - found) or (found - expected))
    raise StvError(
        f"{file} lacks {len(expected - found)} of its tensors and has {len(found - expected)} that are none of "
        f"Qwen-VL's ({some}, for one); fetch it again, or give the folder of a Qwen-VL that is not quantised."
    )


def _write(shard: Shard, shapes: Shapes) -> None:
    weights = _read(shard.old)
    _check_names(shard.old, set(weights), set(shard.names))
    for name, tensor in weights.items():
        if tensor.shape != shapes[name]:
            raise StvError(
                f"{shard.old} has {name} of shape {[*tensor.shape]}, where config.json asks for {[*shapes[name]]}; "
                "fetch both from one repository."
            )
    apart = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    with replaced_file(shard.new) as new:
        save_file(apart, new, metadata={"format": "pt"})


def _read(file: Path) -> dict[str, Tensor]:
    """Tensors and nothing else: no code of a pickle runs."""
    if not file.is_file():
        raise StvError(f"{file} is missing, though the index names it; fetch it.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever torch raises at a file that was cut, or at what it does not unpickle
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise StvError(f"{file} was cut or holds more than weights ({reason}); fetch it again.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise StvError(f"{file} holds something else than weights by name; fetch it again.")
    return found


def _write_index(folder: Path, shards: list[Shard]) -> None:
    """Last of all: with it the folder can be loaded."""
    places = {name: shard.new.name for shard in shards for name in shard.names}
    metadata = (read_json(folder / _MANY) or {}).get("metadata") or {}
    write_json(folder / _INDEX, {"metadata": metadata, "weight_map": dict(sorted(places.items()))})


def _write_tokenizer(folder: Path) -> None:
    """`tokenizer.json`, which is read faster than what it is made of; raises `StvError` where there is neither."""
    whole, ranks = folder / "tokenizer.json", folder / FILE
    if whole.is_file():
        return
    if not ranks.is_file():
        raise StvError(f"{folder} has no {FILE}, Qwen-VL's tokenizer; fetch it from the model's repository.")
    tokenizer = build_tokenizer(read_ranks(ranks))
    with replaced_file(whole) as new:
        tokenizer.save(str(new))
