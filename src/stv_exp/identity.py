"""What a result depends on: one signature a stage, made of its settings, its inputs and its code's version.

Devices, batch size, trackers and paths are left out on purpose: they do not change a result. A setting that a
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
VERSIONS = {"scan": 1, "bank": 1, "policy": 1, "run": 1}


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
        return Signatures(_sign(config.job, asdict(config.pretrain), config.seed))
    data = asdict(config.dataset)
    judged = {key: data.pop(key) for key in ("eval", "max_new_tokens")}
    origin = {"model": {**asdict(config.model), "name": fingerprint(config.model.name)}, "data": data}
    prompting = {"origin": origin, "judged": judged, "shots": config.method.shots, "seed": config.seed}
    if config.method.where == "none":
        return Signatures(_sign("run", prompting))
    scan = _sign("scan", origin, asdict(config.scan), config.seed)
    bank = _sign("bank", scan, _bank_settings(config), config.seed)
    policy = _sign("policy", bank, _policy_settings(config), config.seed)
    return Signatures(_sign("run", prompting, policy, asdict(config.insertion)), scan, bank, policy)


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
    settings: dict[str, Any] = {"how": config.method.how, "learned": config.method.where == "learned"}
    settings["identity"] = config.bank.identity and not settings["learned"]
    if config.method.how == "reinforce":
        settings |= {"policy": asdict(config.policy), "when": config.insertion.when}
        del settings["policy"]["cache_bytes"]
    return settings


def _sign(stage: str, *parts: object) -> str:
    text = json.dumps([stage, VERSIONS.get(stage, 1), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
