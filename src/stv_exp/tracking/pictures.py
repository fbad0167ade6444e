"""The queries' own pictures, where the data can be read here and are those that the run was asked about."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import OmegaConf
from PIL import Image

from stv_exp.config import Config, DatasetConfig
from stv_exp.data.loader import load_task
from stv_exp.data.task import Task
from stv_exp.identity import origin
from stv_exp.tracking.exhibit import Exhibit

Pictures = Callable[[str], Image.Image | None]  # by a query's id
log = logging.getLogger(__name__)


def none(query: str) -> None:
    """No query has a picture."""


def of_task(task: Task) -> Pictures:
    """A query's last image: those before it are its demonstrations'."""
    loaders = {example.id: example.images for example in task.evaluation}

    def picture(query: str) -> Image.Image | None:
        images = loaders.get(query)
        return images[-1]() if images else None

    return picture


def of_run(exhibit: Exhibit) -> Pictures:
    """Those of a run on disk: from its dataset, if that is here and is what it was then."""
    try:
        saved = yaml.safe_load((exhibit.folder / "config.yaml").read_text(encoding="utf-8"))
        if origin(_typed(Config, saved))["data"] != exhibit.manifest["origin"]["data"]:
            return none
        return of_task(_task(json.dumps(saved["dataset"])))
    except Exception as error:  # of a dataset that is elsewhere, whatever its loader raises
        log.debug("The pictures of %s cannot be read (%s)", exhibit.signature, error)
        return none


@lru_cache(maxsize=1)
def _task(dataset: str) -> Task:
    """Runs of a sweep ask about the same task, one after the other."""
    return load_task(Config(dataset=_typed(DatasetConfig, json.loads(dataset))))


def _typed(schema: type, values: Mapping[str, Any]) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
