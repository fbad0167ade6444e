"""Methods against groups of runs: what a page of several studies opens with."""

from __future__ import annotations

from collections.abc import Mapping

from stv_exp.errors import StvError
from stv_exp.report.common import compared
from stv_exp.report.runs import Loaded
from stv_exp.report.tables import Table, headline

COSTS = ("token-forwards", "queries to pay")


def grouped(name: str, groups: Mapping[str, Loaded], costs: str = "") -> Table:
    """A row a method, a column a group: its mean accuracy there with the 95% interval over eval items.

    Rows are in the order of their mean over the groups. `costs` names the group whose costs are the last columns.
    Raises `StvError` where a group has no runs, several models, or no such name.
    """
    if costs and costs not in groups:
        raise StvError(f"{name} has no column {costs} to take costs from; choose from {', '.join(groups)}.")
    found = {group: _rows(name, group, loaded) for group, loaded in groups.items()}
    told = COSTS if costs else ()
    rows = []
    for method in _in_order(found):
        cost = found[costs].get(method, {}) if costs else {}
        accuracies = (own.get(method, {}).get("shown", "-") for own in found.values())
        rows.append([method, *accuracies, *(cost.get(key, "-") for key in told)])
    return Table(name, "", ["method", *groups, *told], rows)


def _rows(name: str, group: str, loaded: Loaded) -> dict[str, dict[str, str]]:
    """The rows of a group's own headline table by method; `shown` is the mean with its interval."""
    if loaded.runs.empty or loaded.runs["model"].nunique() > 1:
        found = "no finished run" if loaded.runs.empty else "runs of several models"
        raise StvError(f"Column {group} of {name} has {found}; run its study, or name it by another study or where.")
    runs, _ = compared(loaded.runs)
    table = headline(runs, loaded.predictions.merge(runs[["label", "task", "seed"]]), "")
    cells = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    means = [cell["accuracy"].split()[0] for cell in cells]  # without the deviation over seeds
    return {
        cell["method"]: cell | {"mean": mean, "shown": f"{mean} {cell['95%']}"}
        for cell, mean in zip(cells, means, strict=True)
    }


def _in_order(rows: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    found: dict[str, list[float]] = {}
    for own in rows.values():
        for method, row in own.items():
            found.setdefault(method, []).append(float(row["mean"]))
    return sorted(found, key=lambda method: sum(found[method]) / len(found[method]))
