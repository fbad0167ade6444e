"""The comparison of runs: a table on screen, as Markdown, CSV and LaTeX, and its pictures."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from tabulate import tabulate

from stv_exp.disk.files import read_json, write_text
from stv_exp.errors import StvError
from stv_exp.report.pictures import accuracy_bars, location_map, reward_curves
from stv_exp.report.runs import load_runs, load_scores, rescored, unfinished
from stv_exp.report.selection import described
from stv_exp.statistics import compare, interval

HEADERS = ["method", "accuracy", "95%", "tasks", "seeds", "location search (s)", "all stages (s)"]
HEADERS += ["candidate evaluations", "token-forwards"]
PAIRED_HEADERS = ["method", "against", "items", "difference", "95%", "p"]


def report(
    outputs: Path,
    study: str | None = None,
    against: str | None = None,
    *,
    metric: str | None = None,
    select: Sequence[str] = (),
) -> Path:
    """Print the comparison of what is on disk and write it to a folder, which is returned.

    `against` is the method that the others are compared with, item by item (default: the best). `metric` scores the
    predictions anew. `select` names settings, each chosen on validation accuracy: only the chosen runs are compared.
    With either the tables go to a folder of their own; no run is changed.
    """
    runs = load_runs(outputs, study, select)
    scores = load_scores(runs, metric)
    runs = rescored(runs, scores) if metric else runs
    rows, tasks, paired = summary(runs, scores), by_task(runs), pairwise(runs, scores, against)
    _print(HEADERS, rows, (study or str(outputs)) + (f", rescored by {metric}" if metric else ""))
    tables = [("table", HEADERS, rows), ("tasks", list(tasks[0]), [list(t.values()) for t in tasks])]
    if paired:
        _print(PAIRED_HEADERS, paired, f"against {paired[0][1]}, on the same items")
        tables.append(("paired", PAIRED_HEADERS, paired))
    folder = _folder(outputs, study, metric, select)
    _write(folder, tables)
    write_text(folder / "runs.csv", runs.drop(columns="folder").to_csv(index=False))
    pictures = _pictures(runs, outputs, folder)
    console = _console()
    for sentence in [*([described(runs, select)] if select else []), *k_collapse(runs), *unfinished(outputs, study)]:
        console.print(f"note: {sentence}", highlight=False)
    names = ", ".join(name for name, _, _ in tables)
    console.print(f"Written to {folder}: {names} (.md .csv .tex), {', '.join(pictures)}", highlight=False)
    return folder


def summary(runs: pd.DataFrame, scores: pd.DataFrame) -> list[list[str]]:
    """One row a method: mean over tasks, then mean and standard deviation over seeds; times are means a run.

    The 95% interval is over eval items, each with its mean over seeds: answering the same item again is no new item.
    """
    rows = []
    for label, own in _in_order(runs):
        by_seed = own.groupby("seed")["accuracy"].mean()
        items = scores[scores["label"] == label].groupby(["task", "id"])["score"].mean()
        search = own["location_search_seconds"].mean()
        rows.append(
            [
                label,
                _mean_and_deviation(by_seed),
                _range(*interval(items.tolist())),
                str(own["task"].nunique()),
                str(len(by_seed)),
                "-" if pd.isna(search) else f"{search:.2f}",
                f"{own['seconds'].mean():.2f}",
                f"{own['candidate_evaluations'].mean():.0f}",
                "-" if pd.isna(tokens := own["search_token_forwards"].mean()) else f"{tokens:.0f}",
            ]
        )
    return rows


def pairwise(runs: pd.DataFrame, scores: pd.DataFrame, against: str | None = None) -> list[list[str]]:
    """One row a method: its difference to the method `against` (default: the best) on the items both have answered.

    Items are paired by task, seed and id, then averaged over seeds. `p` is not corrected for the number of rows.
    """
    labels = [label for label, _ in _in_order(runs)]
    if against is not None and against not in labels:
        raise StvError(f"--against {against} is none of the methods; choose one of {', '.join(labels)}.")
    baseline = against or labels[-1]
    items = scores.pivot_table(index=["task", "seed", "id"], columns="label", values="score")
    return [_paired(items, label, baseline) for label in labels if label != baseline]


def _paired(items: pd.DataFrame, label: str, baseline: str) -> list[str]:
    both = items[[label, baseline]].dropna().groupby(["task", "id"]).mean()
    if both.empty:
        return [label, baseline, "0", "-", "-", "-"]
    found = compare(both[label].tolist(), both[baseline].tolist())
    p = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [label, baseline, str(found.n), f"{found.difference:+.3f}", _range(found.low, found.high), p]


def by_task(runs: pd.DataFrame) -> list[dict[str, str]]:
    """One row a task, one column a method: mean and standard deviation over seeds."""
    labels = [label for label, _ in _in_order(runs)]
    rows = []
    for task, own in runs.groupby("task", sort=True):
        cells = {label: own[own["label"] == label]["accuracy"] for label in labels}
        rows.append({"task": str(task)} | {k: _mean_and_deviation(v) if len(v) else "-" for k, v in cells.items()})
    return rows


def k_collapse(runs: pd.DataFrame) -> list[str]:
    """The sentence for a sweep over K whose accuracy falls as K grows (a diagnostic of the method)."""
    found = []
    k = pd.to_numeric(runs["label"].str.extract(r"\bk=(\d+)")[0])
    for method, own in runs.assign(k=k).dropna(subset="k").groupby("method"):
        means = own.groupby("k")["accuracy"].mean()
        best, largest = float(str(means.idxmax())), float(means.index.max())
        if best < largest and means[largest] < means[best] - 0.05:
            found.append(
                f"Accuracy of {method} drops as K grows ({means[best]:.2f} at k={best:.0f}, {means[largest]:.2f} at "
                f"k={largest:.0f}): the sensitivity picks noisy heads; try another one, or bank.identity=true."
            )
    return found


def _folder(outputs: Path, study: str | None, metric: str | None, select: Sequence[str]) -> Path:
    """Where the tables go: those of a selection or another metric below the runs' own, which they leave alone."""
    folder = outputs / "sweeps" / study if study else outputs / "report"
    folder = folder / f"select-{'-'.join(select)}" if select else folder
    return folder / metric if metric else folder


def _write(folder: Path, tables: Sequence[tuple[str, list[str], list[list[str]]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, headers, table in tables:
        sides = ("left", *("right" for _ in headers[1:]))
        for ending, style in (("md", "github"), ("tex", "latex_booktabs")):
            # Not parsed again: 1.000 is to stay 1.000.
            text = tabulate(table, headers, tablefmt=style, colalign=sides, disable_numparse=True)
            write_text(folder / f"{name}.{ending}", text + "\n")
        write_text(folder / f"{name}.csv", pd.DataFrame(table, columns=headers).to_csv(index=False))


def _in_order(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Runs by label, the labels by mean accuracy."""
    groups = [(str(label), own) for label, own in runs.groupby("label")]
    return sorted(groups, key=lambda g: g[1]["accuracy"].mean())


def _mean_and_deviation(values: pd.Series) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _range(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]"


def _print(headers: list[str], rows: list[list[str]], title: str) -> None:
    table = Table(title=title)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    """The terminal at its own width; a file or a log wide enough for the table."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _pictures(runs: pd.DataFrame, outputs: Path, folder: Path) -> list[str]:
    """Draw what the runs have; returns the names of the files."""
    seeds = {label: own.groupby("seed")["accuracy"].mean().tolist() for label, own in _in_order(runs)}
    figures = {"accuracy.png": accuracy_bars(seeds)}
    histories: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
    for label, own in _in_order(runs):
        for run in own["folder"]:
            if (path := Path(run, "history.csv")).is_file():
                histories[label].append({str(k): v.tolist() for k, v in pd.read_csv(path).items()})
    if histories:
        figures["rewards.png"] = reward_curves(histories)
    if (figure := _first_map(runs, outputs)) is not None:
        figures["sensitivity.png"] = figure
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
    return list(figures)


def _first_map(runs: pd.DataFrame, outputs: Path) -> Figure | None:
    """What the locations of the first run that ranked them were ranked by."""
    from stv_exp.artefacts.bank import Bank

    for _, run in runs.sort_values(["task", "seed"]).iterrows():
        manifest = read_json(Path(run["folder"], "manifest.json")) or {}
        path = outputs / "stages" / f"bank-{manifest['inputs'].get('bank')}" / "artefact.safetensors"
        if path.is_file() and (bank := Bank.load(path)).scores is not None:
            return location_map(bank, f"{run['label']}, {run['task']}; squares: its {len(bank.locations)} locations")
    return None
