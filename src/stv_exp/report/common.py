"""What rows have in common: a mean over tasks and seeds is compared with one over the same tasks and seeds."""

from __future__ import annotations

import pandas as pd

from stv_exp.report.text import in_size, listed


def compared(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The runs to compare, and a sentence on each kind that is left out or has no counterpart."""
    runs, task_notes = _on_common_tasks(runs)
    runs, seed_notes = _with_whole_seeds(runs)
    return runs, [*task_notes, *seed_notes, *_different_seeds(runs)]


def _on_common_tasks(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    tasks = {label: set(own["task"]) for label, own in _by_label(runs)}
    every = set.union(*tasks.values())
    common = set.intersection(*tasks.values())
    if common == every:
        return runs, []
    lacking = listed([f"{label} lacks {listed(sorted(every - own))}" for label, own in tasks.items() if own != every])
    if not common:
        return runs, [
            f"No task has been run by all methods, so that each row is over its own tasks and rows cannot be compared: "
            f"{lacking}."
        ]
    what = "task" if len(common) == 1 else f"{len(common)} tasks"
    note = f"Methods are compared on the {what} that all have run on, of {len(every)}: {lacking}."
    return runs[runs["task"].isin(common)], [note]


def _with_whole_seeds(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without seeds that a method has not run on all of its tasks: their mean is over other tasks than the others'."""
    kept, notes = [], []
    for label, own in runs.groupby("label", sort=False):
        counts = own.groupby("seed")["task"].nunique()
        whole = counts[counts == own["task"].nunique()].index
        if 0 < len(whole) < len(counts):
            left = ", ".join(str(seed) for seed in counts.index.difference(whole))
            notes.append(f"{label} has not run on all of its tasks with seed {left}: it is compared without.")
            own = own[own["seed"].isin(whole)]
        elif len(whole) == 0:
            notes.append(f"{label} has run on no two of its tasks with the same seeds: its deviation is no seed's.")
        kept.append(own)
    return pd.concat(kept), notes


def _different_seeds(runs: pd.DataFrame) -> list[str]:
    by_seeds: dict[str, list[str]] = {}
    for label, own in _by_label(runs):
        seeds = listed([str(seed) for seed in sorted(own["seed"].unique())], 10)
        by_seeds.setdefault(seeds, []).append(label)
    if len(by_seeds) < 2:
        return []
    told = "; ".join(f"{seeds} of {listed(labels)}" for seeds, labels in by_seeds.items())
    return [f"Methods have run with different seeds: {told}."]


def _by_label(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return sorted(((str(label), own) for label, own in runs.groupby("label")), key=lambda group: in_size(group[0]))
