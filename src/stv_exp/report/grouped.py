"""Methods against groups of runs: what a page of several studies opens with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from stv_exp.errors import StvError
from stv_exp.report.common import compared
from stv_exp.report.runs import Loaded
from stv_exp.report.tables import Table, headline

COSTS = ("token-forwards", "queries to pay")


def grouped(name: str, groups: Mapping[str, Loaded], costs: Sequence[str] = ()) -> tuple[Table, list[str]]:
    """A row a method, a column a group: its mean accuracy there with the 95% interval over eval items.

    Rows are in the order of their mean over the groups. `costs` names the groups whose costs are the last columns. And
    sentences on what is left out. Raises `StvError` where a group has several models, or no such name.
    """
    if unknown := [group for group in costs if group not in groups]:
        raise StvError(f"{name} has no column {unknown[0]} to take costs from; choose from {', '.join(groups)}.")
    found, notes = dict[str, dict[str, dict[str, str]]](), list[str]()
    for group, loaded in groups.items():
        found[group], own = _rows(name, group, loaded)
        notes += [f"{group}: {note}" for note in own]
    rows = []
    for method in _in_order(found):
        accuracies = (own.get(method, {}).get("shown", "-") for own in found.values())
        spent = (found[group].get(method, {}).get(cost, "-") for group in costs for cost in COSTS)
        rows.append([method, *accuracies, *spent])
    told = [f"{cost} ({group})" if len(costs) > 1 else cost for group in costs for cost in COSTS]
    return Table(name, "", ["method", *groups, *told], rows), notes


def _rows(name: str, group: str, loaded: Loaded) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The rows of a group's own headline table by method, `shown` being the mean with its interval, and notes."""
    if loaded.runs["model"].nunique() > 1:
        raise StvError(f"Column {group} of {name} has runs of several models; name one of them in its where.")
    runs, notes = compared(loaded.runs)
    table = headline(runs, loaded.predictions.merge(runs[["label", "task", "seed"]]), "")
    cells = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    means = [cell["accuracy"].split()[0] for cell in cells]  # without the deviation over seeds
    shown = [{"mean": mean, "shown": f"{mean} {cell['95%']}"} for cell, mean in zip(cells, means, strict=True)]
    return {cell["method"]: cell | own for cell, own in zip(cells, shown, strict=True)}, notes


def _in_order(rows: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    found: dict[str, list[float]] = {}
    for own in rows.values():
        for method, row in own.items():
            found.setdefault(method, []).append(float(row["mean"]))
    return sorted(found, key=lambda method: fmean(found[method]))
