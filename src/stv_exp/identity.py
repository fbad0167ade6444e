"""What a result depends on: one signature a stage, made of its settings, its inputs and its code's version.

Devices, batch size, trackers and paths are left out on purpose: they do not change a result. A model or a dataset in a
folder is what its files hold, wherever they lie. A setting that no choice of a method reads is left out too, so that
sweeps share whatever they can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from stv_exp.config import Config, DatasetConfig, filled, learned_from, setting
from stv_exp.data.fingerprint import sources
from stv_exp.methods.method import READING, SCAN, Method
from stv_exp.models.sources import fingerprint

# Raised by hand when the results of a stage would change.
VERSIONS = {"scan": 4, "bank": 4, "policy": 4, "run": 4}
# Of what few runs have: the identity of others' results names none. `ends` is how a chat's answers are taught to end.
SOME = {"effects": 1, "train": 2, "labels": 2, "ends": 2}
JUDGED = ("eval", "eval_split", "max_new_tokens", "metric")  # of the dataset, what only evaluation reads


@dataclass(frozen=True)
class Signatures:
    """Signatures of a run and the stages it needs; a stage it does not need is empty."""

    run: str
    scan: str = ""
    effects: str = ""
    bank: str = ""
    policy: str = ""
    train: str = ""


def signatures(config: Config) -> Signatures:
    """Signatures of everything that `config` makes (no model is loaded for this)."""
    if config.job != "run":
        return Signatures(_sign("run", settings(config), config.seed))
    method = Method.of(config)
    learned = learned_from(config) if method.learns else config.dataset
    data = _data(learned, config.outputs)
    judged = {key: data.pop(key) for key in JUDGED}
    if learned != config.dataset:
        judged["asked"] = _data(config.dataset, config.outputs)
    origin = {"model": {**_model(config), "name": fingerprint(config.model.name)}, "data": data}
    ends = [SOME["ends"]] if config.model.chat else []
    judgement = [origin, judged, config.method.name, _values(config, method.prompting()), config.seed]
    if method.classifies:
        scan = _sign("scan", origin, _values(config, READING), config.seed)
        return Signatures(_sign("run", *judgement, scan, method.classifier_settings()), scan)
    if method.trains:
        train = _sign("train", origin, method.train_settings(), config.seed, *ends)
        return Signatures(_sign("run", *judgement, train), train=train)
    if not method.inserts:
        return Signatures(_sign("run", *judgement))
    scan = _sign("scan", origin, _values(config, SCAN), config.seed)
    effects = _sign("effects", scan, method.effects_settings(), config.seed) if method.where.asks else ""
    bank = _sign("bank", effects or scan, method.bank_settings(), config.seed)
    policy = _sign("policy", bank, method.search_settings(), config.seed, *ends)
    return Signatures(_sign("run", *judgement, policy, config.insertion.when), scan, effects, bank, policy)


def settings(config: Config) -> dict[str, Any]:
    """The settings that a run's result depends on, nested as in its config."""
    if config.job != "run":
        return {config.job: asdict(config.pretrain if config.job == "pretrain" else config.dataset)}
    used: dict[str, Any] = {"model": _model(config), "dataset": asdict(config.dataset)}
    signed = Method.of(config).signed
    for section, values in asdict(config).items():
        if isinstance(values, dict) and section not in used:
            used[section] = {name: value for name, value in values.items() if f"{section}.{name}" in signed}
    used["fit"] = filled(used["fit"])
    used |= Method.of(config).cap()
    return {section: values for section, values in used.items() if values}


def origin(config: Config) -> dict[str, Any]:
    """What tells results apart that have the same settings: the code's versions, and the files behind the names."""
    if config.job != "run":
        return {"code": VERSIONS}
    method = Method.of(config)
    asked, learned = (sources(dataset, config.outputs) for dataset in (config.dataset, learned_from(config)))
    files = {"data": _sign("data", asked)}
    files |= {"learned_from": _sign("data", learned)} if method.learns and learned != asked else {}
    has = {"effects": method.where.asks, "train": method.trains, "labels": config.dataset.label_noise > 0}
    has["ends"] = config.model.chat and (method.trains or method.inserts)
    code = VERSIONS | {stage: version for stage, version in SOME.items() if has[stage]}
    code |= method.versions()
    return {"code": code, "model": fingerprint(config.model.name), **files}


def _model(config: Config) -> dict[str, Any]:
    model = asdict(config.model)
    del model["device_map"]  # where weights lie changes no result
    return model


def _data(dataset: DatasetConfig, outputs: str) -> dict[str, Any]:
    """Its settings, with what they name instead of the paths."""
    data, read = asdict(dataset), sources(dataset, outputs)
    data["root"], data["episode"]["annotations"] = read.pop("root"), read.pop("annotations")
    return data | read | ({"labels": SOME["labels"]} if dataset.label_noise else {})


def _values(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    return {key: setting(config, key) for key in keys}


def _sign(stage: str, *parts: object) -> str:
    text = json.dumps([stage, (VERSIONS | SOME).get(stage, 1), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
