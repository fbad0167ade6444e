"""Each rival reaches far more than the query alone on a task that it is known to solve: what learns nothing fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from stv_exp import configure, run

FOUND = {  # the query alone is right in one of six
    "tv": ("shape-shared-0", ["scan.pairs=40"], 0.7),
    "fv": ("texture-shared-1", ["scan.pairs=40"], 0.6),
    "savs": ("position-0", [], 0.9),
}
TRAINED = {  # the testbed's hardest tasks, which take more demonstrations than fit, asked alone right in one of ten
    "learned": ("shape-many-0", ["train.epochs=3"], 0.9),
    "hificl": ("shape-many-0", ["train.epochs=3"], 0.9),
    "lora": ("position-many-0", ["train.epochs=4"], 0.9),
    "prefix": ("colour-many-0", ["train.epochs=4"], 0.9),
    "live": ("texture-many-0", ["train.epochs=4", "train.lr=0.05", "train.scale_lr=0.05"], 0.9),
    "mimic": ("texture-many-0", ["train.epochs=8"], 0.7),
    "i2cl": ("texture-shared-0", ["train.epochs=4"], 0.7),  # its four scalars a layer are few for the others
}
REPEAT = "Q: thank\nA: thank\nQ: seven\nA: seven\nQ: shadow\nA: shadow\nQ: music\nA: music\n"  # of no task
WORDS = {  # SmolLM2's first answers are right in none
    "tv": ("past_tense", ["insertion.when=prompt"], 0.4),
    "fv": ("past_tense", ["method.k=40", "insertion.when=prompt"], 0.2),
    "i2cl": ("past_tense", [], 0.6),
    "icv": ("singular_plural", [f"dataset.template.prefix={REPEAT!r}"], 0.2),
}


def accuracy(outputs: Path, method: str, *words: str) -> float:
    return run(configure(f"method={method}", *words, "tracker=none", f"outputs={outputs}"))["accuracy"]


@pytest.mark.parametrize("method", [*FOUND, *TRAINED])
def test_each_works_where_it_is_known_to(tmp_path, method):
    task, words, at_least = (FOUND | TRAINED)[method]
    support = 120 if method in FOUND else 200
    data = [f"dataset.task={task}", f"dataset.support={support}", "dataset.eval=60"]
    assert accuracy(tmp_path, method, *data, *words) >= at_least


@pytest.mark.slow
@pytest.mark.parametrize("method", WORDS)
def test_each_works_on_real_weights_where_it_is_known_to(tmp_path, method):
    task, words, at_least = WORDS[method]
    model = ["model=smollm2", "model.dtype=float32", "dataset=words", "trainer.batch_size=64"]
    assert accuracy(tmp_path, method, *model, f"dataset.task={task}", *words) >= at_least
