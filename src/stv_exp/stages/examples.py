"""The examples that a run keeps of its evaluation, small enough to be shown wherever its folder is copied to."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import islice

from PIL import Image

from stv_exp.data.task import Task
from stv_exp.stages.evaluate import Prediction

KEPT = 12  # of those answered right, and as many of those answered wrong
SIDE = 192  # pixels, at most


def examples(task: Task, predictions: Sequence[Prediction]) -> list[dict[str, object]]:
    """The first queries answered right and wrong, each as its id and its pictures (WebP in base64).

    Queries without pictures are none of them: their texts are in the predictions.
    """
    shown = {p.id for right in (True, False) for p in islice(_answered(predictions, right), KEPT)}
    queries = [query for query in task.evaluation if query.id in shown and query.images]
    return [{"id": query.id, "pictures": [_small(picture) for picture in query.pictures]} for query in queries]


def _answered(predictions: Sequence[Prediction], right: bool) -> filter[Prediction]:
    return filter(lambda p: (p.correct >= 0.5) == right, predictions)


def _small(picture: Image.Image) -> str:
    """Small pictures keep their size: a reader's browser enlarges them."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
