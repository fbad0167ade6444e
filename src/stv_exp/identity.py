"""What a result depends on: one signature a stage, made of its settings, its inputs and its code's version.

Devices, batch size, trackers and paths are left out on purpose: they do not change a result. `dataset.root` is the
exception: another folder may hold other data. A setting that a
method does not use is left out too, so that sweeps share whatever they can.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from stv_exp.config import Config
from stv_exp.models.sources import fingerprint

# Raised by hand when the results of a stage would change.
VERSIONS = {"scan": 2, "bank": 2, "policy": 2, "run": 2}


@dataclass(frozen=True)
class Signatures:
    """Signatures of a run and the stages it needs; a stage it does not need is empty."""

    run: str
    scan: str = ""
    bank: str = ""
    policy: str = ""


def signatures(config: Config) -> Signatures:
    """Signatures of everything that `config` makes (no model is loaded for this)."""
    if config.job != "run":
        return Signatures(_sign("run", settings(config), config.seed))
    used = settings(config)
    data = used["dataset"]
    judged = {key: data.pop(key) for key in ("eval", "eval_split", "max_new_tokens", "metric")}
    origin = {"model": {**used["model"], "name": fingerprint(config.model.name)}, "data": data}
    judgement = [origin, judged, used["method"], config.seed]
    if config.method.where == "none":
        return Signatures(_sign("run", *judgement))
    scan = _sign("scan", origin, used["scan"], config.seed)
    bank = _sign("bank", scan, used["bank"], config.seed)
    policy = _sign("policy", bank, used["policy"], config.seed)
    return Signatures(_sign("run", *judgement, policy, used["insertion"]), scan, bank, policy)


def settings(config: Config) -> dict[str, Any]:
    """The settings that a run's result depends on, by the stage that reads them."""
    if config.job != "run":
        return {config.job: asdict(config.pretrain if config.job == "pretrain" else config.dataset)}
    model = asdict(config.model)
    del model["device_map"]  # where weights lie changes no result
    used: dict[str, Any] = {"model": model, "dataset": asdict(config.dataset)}
    used["method"] = {"name": config.method.name, "shots": config.method.shots}
    if config.method.shots:
        used["method"]["demonstrations"] = config.demonstrations.choice
    if config.method.where != "none":
        used |= {
            "scan": asdict(config.scan) | {"demonstrations": config.demonstrations.choice},
            "bank": _bank_settings(config),
        }
        used |= {"policy": _policy_settings(config), "insertion": asdict(config.insertion)}
    return used


def _bank_settings(config: Config) -> dict[str, Any]:
    method = config.method
    chosen = method.where in ("sensitivity", "random")
    return {
        "where": "all" if method.where == "learned" else method.where,
        "sensitivity": method.sensitivity if method.where == "sensitivity" else None,
        "k": method.k if chosen else None,
        "m": method.m if method.what == "clusters" else None,
        "mode": config.insertion.mode,
    }


def _policy_settings(config: Config) -> dict[str, Any]:
    learned = config.method.where == "learned"
    used: dict[str, Any] = {"how": config.method.how, "learned": learned}
    used["identity"] = config.bank.identity and not learned
    if config.method.how == "reinforce":
        used |= asdict(config.policy) | {"when": config.insertion.when}
        del used["cache_bytes"]
    return used


def _sign(stage: str, *parts: object) -> str:
    text = json.dumps([stage, VERSIONS.get(stage, 1), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
