"""The diagnostic of a sweep over K: more locations that make a method worse."""

from __future__ import annotations

import pandas as pd


def k_collapse(runs: pd.DataFrame) -> list[str]:
    """The sentence for a sweep over K whose accuracy falls as K grows and nothing else changes."""
    found = []
    k = pd.to_numeric(runs["label"].str.extract(r" k=(\d+)\b")[0])
    rest = runs["label"].str.replace(r" k=\d+\b", "", n=1, regex=True)
    for method, own in runs.assign(k=k, rest=rest).dropna(subset="k").groupby("rest"):
        means = own.groupby("k")["accuracy"].mean()
        best, largest = float(str(means.idxmax())), float(means.index.max())
        if best < largest and means[largest] < means[best] - 0.05:
            found.append(
                f"Accuracy of {method} drops as K grows ({means[best]:.2f} at k={best:.0f}, {means[largest]:.2f} at "
                f"k={largest:.0f}): the sensitivity picks noisy heads; try another one, or bank.identity=true."
            )
    return found
