"""One job: the stages in order, each looked up in the store first."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from stv_exp import memory
from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.chosen import Chosen
from stv_exp.artefacts.effects import Effects
from stv_exp.artefacts.readings import Classes, Readings
from stv_exp.artefacts.scan import Scan
from stv_exp.check_config import checked
from stv_exp.config import Config
from stv_exp.data.demonstrations import check_shots
from stv_exp.data.loader import check_dataset, load_task
from stv_exp.data.task import Task
from stv_exp.diagnostics import diagnose, discretisation_gap
from stv_exp.disk.files import replaced_file, write_json
from stv_exp.disk.locks import locked
from stv_exp.disk.run import Run
from stv_exp.disk.store import A, Cost, Store
from stv_exp.identity import signatures
from stv_exp.methods.method import Method
from stv_exp.models.backbone import COUNTED, Backbone
from stv_exp.models.loading import load_backbone, model_grid
from stv_exp.stages import budget, reading, search, train
from stv_exp.stages import evaluate as evaluation
from stv_exp.stages.bank import build_bank
from stv_exp.stages.effects import measure
from stv_exp.stages.evaluate import Found, Prediction, accuracy, evaluate, summary
from stv_exp.stages.examples import examples
from stv_exp.stages.scan import scan
from stv_exp.stages.search import choose
from stv_exp.stages.vector import as_vector
from stv_exp.task_vector import TaskVector
from stv_exp.tracking.pictures import of_task
from stv_exp.tracking.tracker import Tracker, tracked
from stv_exp.tracking.view import check as check_tracker
from stv_exp.trained_edit import TrainedEdit

log = logging.getLogger(__name__)
R = TypeVar("R", Chosen, TrainedEdit)


def check(config: Config) -> None:
    """Raise `StvError` for settings that do not fit the model, by its config.json, datasets or tracker."""
    check_dataset(config)
    _check_grid(config)
    check_tracker(config.tracker)


def _check_grid(config: Config) -> None:
    method = Method.of(config)
    if method.inserts or method.classifies or method.trains:
        method.check_grid(model_grid(config))


def check_task(task: Task, config: Config) -> None:
    """Raise `StvError` for a task that does not hold what the method and the evaluation ask of it."""
    method = Method.of(config)
    evaluation.check(task, config)
    if method.inserts:
        check_shots(task, config.scan.shots)
        search.check(task, config)
    if method.classifies:
        reading.check(task, config)
    if method.trains:
        train.check(task, config)


def run(config: Config, overrides: list[str]) -> dict[str, Any]:
    """Run the job, or look it up where it is done; returns its metrics."""
    config = checked(config)
    job = Run(config.outputs, signatures(config))
    with locked(job.folder):  # a job of the same signature waits here, and then finds this one's results
        if (metrics := job.metrics) is not None:
            log.info("Run %s is done; its results are in %s", job.signature, job.folder)
            return metrics
        if found := job.damage:
            log.warning("Run %s is damaged (%s) and is made anew from its stages", job.signature, found)
        check_tracker(config.tracker)
        with tracked(job.folder, config.tracker) as tracker:
            with job.recorded(config, overrides):
                tracker.start()
                pipeline = Pipeline(config, job, tracker)
                metrics = pipeline.run()
            tracker.finish(of_task(pipeline.task))  # what it shows is on disk by now
    return metrics


class Pipeline:
    """The stages of one method on one task."""

    def __init__(self, config: Config, job: Run, tracker: Tracker) -> None:
        self.config = config
        self.job = job
        self.tracker = tracker
        self.store = Store(config.outputs)
        self.signatures = job.signatures
        self.method = Method.of(config)

    @cached_property
    def task(self) -> Task:
        return load_task(self.config)

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.config.model, self.config.trainer.accelerator)

    def run(self) -> dict[str, Any]:
        """The stages that the method needs, and evaluation; writes the run's files and returns its metrics."""
        costs: dict[str, Cost] = {}
        _check_grid(self.config)  # before the weights are loaded, and hours of scanning
        check_task(self.task, self.config)  # before a large model is loaded, which takes minutes
        bank, chosen = self._searched(costs) if self.method.inserts else (None, None)
        found = self._found(costs, bank, chosen)
        with measured(self.backbone) as costs["evaluation"]:
            predictions = evaluate(self.backbone, self.task, found, self.config)
        options = bank.centroids.shape[1] + self.method.how.may_decline if bank else 0
        metrics = self._metrics(costs, chosen, predictions, options) | self._validation(found)
        if isinstance(found, TaskVector | TrainedEdit):
            self._keep(found, metrics)
        self.job.write_predictions([p.as_json() for p in predictions])
        self.job.write_examples(examples(self.task, predictions))
        write_json(self.job.folder / "metrics.json", metrics)
        return metrics

    def _searched(self, costs: dict[str, Cost]) -> tuple[Bank, Chosen]:
        """What may be inserted, and what was chosen of it."""
        scanned, costs["scan"] = self._stage("scan", Scan, self._scan)
        if self.method.where.asks:
            effects, costs["effects"] = self._stage("effects", Effects, partial(self._effects, scanned))
            scanned = replace(scanned, effects=effects.scores)
        bank, costs["bank"] = self._stage("bank", Bank, partial(self._bank, scanned))
        chosen, costs["policy"] = self._policy(bank, self._spent(costs))
        return bank, chosen

    def _found(self, costs: dict[str, Cost], bank: Bank | None, chosen: Chosen | None) -> Found | None:
        """What stands for the demonstrations; nothing where they are prompted with."""
        if bank and chosen:
            return as_vector(self.backbone, bank, chosen, self.config)
        if self.method.trains:
            edit, costs["train"] = self._train()
            return edit
        return self._classes(costs) if self.method.classifies else None

    def _keep(self, found: TaskVector | TrainedEdit, metrics: dict[str, Any]) -> None:
        """In the run's folder, with how good it is: it travels alone."""
        # Methods that differ in nothing but their names share a training.
        known: dict[str, Any] = {"run": self.signatures.run, "method": self.config.method.name}
        known["metrics"] = {key: metrics[key] for key in ("accuracy", "n")}
        with replaced_file(self.job.folder / found.file) as new:
            replace(found, metadata=found.metadata | known).save(new)

    def _validation(self, found: Found | None) -> dict[str, float]:
        """The score on the examples that settings may be chosen on, where some are held out."""
        if not self.task.validation:
            return {}
        predictions = evaluate(self.backbone, self.task, found, self.config, "validation")
        return {"validation_accuracy": accuracy(predictions), "validation_n": len(predictions)}

    def _scan(self) -> Scan:
        return scan(self.backbone, self.task, self.config)

    def _effects(self, scanned: Scan) -> Effects:
        return measure(self.backbone, self.task, scanned, self.config)

    def _bank(self, scanned: Scan) -> Bank:
        return build_bank(scanned, self.config, self.backbone)

    def _classes(self, costs: dict[str, Cost]) -> Classes:
        """What a classifier keeps of its readings, which stand where other methods have their scan."""
        read = partial(reading.read, self.backbone, self.task, self.config)
        readings, costs["scan"] = self._stage("scan", Readings, read)
        self._spent(costs)
        return reading.learned(readings, self.config)

    def _policy(self, bank: Bank, spent: float) -> tuple[Chosen, Cost]:
        """One candidate a location."""
        make = partial(choose, self.backbone, self.task, bank, self.config, self.tracker.logger, spent=spent)
        return self._resumable("policy", Chosen, make)

    def _train(self) -> tuple[TrainedEdit, Cost]:
        """The parameters of an edit."""
        make = partial(train.train, self.backbone, self.task, self.config, self.tracker.logger)
        return self._resumable("train", TrainedEdit, make)

    def _resumable(self, name: str, kind: type[R], make: Callable[[Path], R]) -> tuple[R, Cost]:
        """A stage that keeps its state in a folder while it runs; the tracker sees its curves live."""
        folder = self.store.scratch(name, getattr(self.signatures, name))
        made, cost = self._stage(name, kind, partial(make, folder))
        shutil.rmtree(folder, ignore_errors=True)
        if made.history:
            self.job.write_history(made.history)
        return made, cost

    def _spent(self, costs: dict[str, Cost]) -> float:
        """Token-forwards so far; raises `StvError` where the budget is overdrawn."""
        spent = sum(cost["token_forwards"] for cost in costs.values())
        budget.check(self.config, spent)
        return spent

    def _stage(self, name: str, kind: type[A], make: Callable[[], A]) -> tuple[A, Cost]:
        """Look a stage up in the store, or make it and measure that."""

        def build() -> tuple[A, Cost]:
            with measured(self.backbone) as cost:
                artefact = make()
            return artefact, cost

        return self.store.stage(name, getattr(self.signatures, name), kind, build)

    def _metrics(
        self, costs: dict[str, Cost], chosen: Chosen | None, predictions: list[Prediction], options: int
    ) -> dict[str, Any]:
        seconds = {stage: cost["seconds"] for stage, cost in costs.items()}
        peaks = {stage: cost["peak_memory_bytes"] for stage, cost in costs.items() if "peak_memory_bytes" in cost}
        return {
            **summary(predictions, self.config.dataset.metric),
            "seconds": seconds | {"total": sum(seconds.values())},
            "location_search_seconds": self._location_search(seconds),
            "peak_memory_bytes": max(peaks.values()),
            "peak_memory_by_stage": peaks,
            **self._met(),
            "candidate_evaluations": chosen.candidate_evaluations if chosen else 0,
            **{name: {stage: cost[name] for stage, cost in costs.items()} for name in COUNTED},
            "scoring": chosen.scoring if chosen else "",
            "locations": len(chosen.locations) if chosen else 0,
            "discretisation_gap": discretisation_gap(chosen) if chosen else None,
            "diagnostics": diagnose(chosen, predictions, options),
        }

    def _met(self) -> dict[str, Any]:
        """The model's grid of heads and the device, which no setting says."""
        heads = self.backbone.heads
        return {"layers": heads.depth, "heads": heads.n_heads, "device": device_name(self.backbone.device)}

    def _location_search(self, seconds: dict[str, float]) -> float | None:
        """Seconds until the locations are known: the scan for STV, the whole mask search for MTV."""
        spent = self.method.location_search
        return sum(seconds[stage] for stage in spent) if spent else None


@contextmanager
def measured(backbone: Backbone) -> Iterator[Cost]:
    """Seconds, what is `COUNTED`, and the bytes held at the peak that the body takes, pictures seen anew."""
    cost: Cost = {}
    memory.forget_peak(backbone.device)
    backbone.pictures.recent.clear()  # a stage costs the same whatever came before
    before, start = {name: getattr(backbone, name) for name in COUNTED}, time.perf_counter()
    yield cost
    cost["seconds"] = time.perf_counter() - start
    cost["peak_memory_bytes"] = memory.peak(backbone.device)
    cost |= {name: getattr(backbone, name) - before[name] for name in COUNTED}


def device_name(device: torch.device) -> str:
    """What does the computing: the accelerator's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
