"""The runs and the predictions on disk as tables of pandas: what a report prints is in them."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from stv_exp.report.folders import nothing
from stv_exp.report.runs import load

log = logging.getLogger(__name__)


def runs(outputs: Path | str = "outputs", study: str | None = None) -> pd.DataFrame:
    """One row for each finished and undamaged run of an outputs folder, or of one of its studies.

    Columns: `run` (its signature), `folder`, `label` (method and what varies), `variant` (the same
    without the model), `method`, `model` and `task` (told apart where one name stands for several), `seed`; every
    setting under its full key (`method.k`; a list as JSON) and every number of metrics.json (`accuracy`,
    `seconds.scan`), NaN where a run has none; `search_token_forwards` (all stages before the evaluation),
    `queries_to_pay` (see `pay`), `bank` (signature), `code.<stage>` (version), `origin.model`, `origin.data` and
    `origin.learned_from`
    (digests of their files), `overrides` (of the command). Other folders are named in the log. Raises `StvError` where
    nothing is finished.
    """
    return _loaded(outputs, study)[0]


def predictions(outputs: Path | str = "outputs", study: str | None = None) -> pd.DataFrame:
    """One row for each eval query of each of `runs`, with their `run`, `label`, `task` and `seed`.

    Columns beside these: `id`, `question`, `answers`, `prediction`, `correct` (its score in 0-1), `demonstration_ids`.
    """
    return _loaded(outputs, study)[1]


def _loaded(outputs: Path | str, study: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    loaded = load(Path(outputs), study)
    for note in loaded.notes:
        log.warning(note)
    if loaded.runs.empty:
        raise nothing(Path(outputs), study)
    return loaded.runs, loaded.predictions
