"""Trains the parameters of an edit through the frozen model, on zero-shot support queries and their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

from stv_exp.config import Config, learned_from
from stv_exp.data.demonstrations import check_shots
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.methods.guard import blamed
from stv_exp.methods.method import Method
from stv_exp.methods.trained import Trained
from stv_exp.models.answers import Said, joined, said
from stv_exp.models.attached import attached
from stv_exp.models.backbone import Backbone
from stv_exp.progress import Meter
from stv_exp.stages.budget import affordable
from stv_exp.stages.checkpoint import SearchCheckpoint, newest
from stv_exp.stages.frozen import FrozenModel
from stv_exp.stages.resumable import Resumable
from stv_exp.stages.teacher import taught
from stv_exp.stages.trainer import Items, make_trainer
from stv_exp.stages.vector import made_by
from stv_exp.trained_edit import TrainedEdit, fitted

log = logging.getLogger(__name__)


def train(
    backbone: Backbone, task: Task, config: Config, logger: Logger | None = None, folder: Path | None = None
) -> TrainedEdit:
    """Train `method.edit`; the training keeps its state in `folder` and goes on from there."""
    edit = Method.of(config).edit
    with blamed(edit):
        module = Training(backbone, task, edit, config)
    if folder and (state := newest(folder)):
        module.resume(state)
        log.info("The training goes on at step %d of %d", module.step, module.steps)
    left = module.batches()[module.step :]
    kept = [SearchCheckpoint(folder)] if folder else []
    meter = Meter(module.stage, module.steps, module.step, config.trainer.progress_bar)
    trainer = make_trainer(config.trainer, False, logger, kept, meter, max_epochs=1)
    if left and not module.patient.over:
        trainer.fit(module, DataLoader(Items(left), batch_size=None))
    return module.result()


def check(task: Task, config: Config) -> None:
    """Raise `StvError` where a batch or the early stop would need more examples than there are."""
    if Method.of(config).edit.losses and config.train.batch > len(task.support):
        raise StvError(
            f"train.batch={config.train.batch} exceeds the {len(task.support)} support examples of {task.name}; "
            "lower it or raise dataset.support."
        )
    edit, shots = Method.of(config).edit, config.train.shots
    if edit.taught or ("train.start" in edit.reads and config.train.start == "mean"):
        check_shots(task, shots)
    elif not edit.losses and shots > len(task.support):
        raise StvError(
            f"train.shots={shots} exceeds the {len(task.support)} support examples of {task.name}; "
            "lower it or raise dataset.support."
        )
    if config.train.patience and not task.validation:
        raise StvError(
            f"train.patience={config.train.patience} stops by the loss on validation examples, and {task.name} has "
            "none; set dataset.validation, or train.patience=0."
        )


class Patience:
    """The best parameters by validation loss so far, and whether it is time to stop."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.loss = float("inf")
        self.since = 0
        self.best: dict[str, Tensor] = {}

    @property
    def over(self) -> bool:
        return 0 < self.epochs <= self.since

    def look(self, loss: float, parameters: dict[str, Tensor]) -> None:
        """Take note of an epoch's end."""
        self.since += 1
        if loss < self.loss:
            self.loss, self.since = loss, 0
            self.best = {name: value.clone() for name, value in parameters.items()}


class Training(Resumable):
    """Gradient steps on an edit's parameters, each on a batch of support queries."""

    stage = "training"

    def __init__(self, backbone: Backbone, task: Task, edit: Trained, config: Config) -> None:
        super().__init__(backbone, config.seed)
        check(task, config)
        self.task = task
        self.edit = edit
        self.config = config
        self._template = learned_from(config).template
        frozen = FrozenModel(backbone, task, config)
        self.options = edit.options(frozen.shape)
        start = edit.start(frozen)
        self.weights = nn.ParameterDict({name: v for name, v in start.items() if name not in edit.constants})
        self.constants = {name: value for name, value in start.items() if name in edit.constants}
        self._see()
        self.teacher = taught(backbone, task, config, self._observed) if edit.taught else {}
        self.patient = Patience(config.train.patience)
        self.per_epoch = edit.per_epoch(len(task.support))
        self._rewarded = 1 if config.train.tokens == "first" else None  # of an answer's tokens; None: all
        self._ended = config.train.to_the_end
        self.steps = self._affordable()

    def _see(self) -> None:
        """Compute what is read of the support's pictures, in the same batches where the training goes on later."""
        pictures, size = self.backbone.pictures, self.config.trainer.batch_size
        shown = [query for query in self.task.support if query.images] if pictures.shareable else []
        with Meter("pictures", len(shown), bar=self.config.trainer.progress_bar) as meter:
            for start in range(0, len(shown), size):
                part = shown[start : start + size]
                pictures.features([image for query in part for image in query.pictures])
                meter.advance(len(part))

    @property
    def _observed(self) -> str:
        return self.edit.observed if "mse" in self.edit.losses else ""

    def configure_optimizers(self) -> Any:
        train = self.config.train
        groups = [
            {
                "params": [value],
                "lr": getattr(train, self.edit.rates.get(name, "lr")),
                "weight_decay": 0.0 if name in self.edit.undecayed else train.weight_decay,
            }
            for name, value in self.weights.items()
        ]
        optimizer = torch.optim.AdamW(groups)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(train.warmup * self.steps), self.steps)
        if self.states:
            optimizer.load_state_dict(self.states["optimizer_states"][0])
            schedule.load_state_dict(self.states["lr_schedulers"][0])
        return [optimizer], [schedule]

    def batches(self) -> list[list[Example]]:
        """The queries of each step: epochs of a shuffled support; what fills no batch is left out of its epoch."""
        pick, n, found = Generator().manual_seed(self.config.seed), self.config.train.batch, list[list[Example]]()
        for _ in range(self.config.train.epochs):
            order = torch.randperm(len(self.task.support), generator=pick).tolist()
            epoch = [self.task.support[i] for i in order]
            found += [epoch[i * n : (i + 1) * n] for i in range(self.per_epoch)]
        return found[: self.steps]

    def _affordable(self) -> int:
        """Steps of all epochs, or those that the budget pays for beside start, teacher and looks at validation."""
        self.steps = self.config.train.epochs * self.per_epoch
        if not self.config.budget:
            return self.steps
        look = sum(self._tokens(query) for query in self.task.validation) if self.patient.epochs else 0
        each = {query.id: 3 * self._tokens(query) for query in self.task.support} if self.steps else {}
        steps = enumerate(self.batches(), 1)
        costs = (sum(each[q.id] for q in batch) + (0 if i % self.per_epoch else look) for i, batch in steps)
        total = list(accumulate(costs, initial=look))
        return affordable(self.config, self.spent, total.__getitem__, self.steps)

    def _tokens(self, query: Example) -> int:
        """Of a forward of the prompt and all but the last token of its answer."""
        prompt = make_prompt(self._template, query)
        answer = self.backbone.encode_answer(prompt, self._ended)[: self._rewarded]
        return self.backbone.count_tokens([prompt]) + len(answer) - 1

    def training_step(self, batch: list[Example], batch_idx: int) -> None:
        if self.patient.epochs and not self.step:
            self._look()  # the start may be the best
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        before = self.backbone.token_forwards
        with blamed(self.edit):
            losses = self.losses(batch, self._noise if self.edit.noisy else None)
        loss = sum(self.edit.losses[name] * value for name, value in losses.items())
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            raise StvError(
                f"The loss of step {self.step} of the training is NaN or infinite; lower train.lr, or use "
                "model.dtype=float32."
            )
        self.manual_backward(loss)
        self.backbone.token_forwards += 2 * (self.backbone.token_forwards - before)
        if self.config.train.clip:
            nn.utils.clip_grad_norm_(self.weights.parameters(), self.config.train.clip)
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.step += 1
        self.record(loss=loss.item(), **{name: value.item() for name, value in losses.items()})

    def losses(self, batch: Sequence[Example], noise: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """Each of the edit's losses on a batch, a mean over the tokens of the answers (see `train.tokens`)."""
        found, tokens = self._said(batch, noise)
        losses = {"ce": F.cross_entropy(found.logits, tokens)} if "ce" in self.edit.losses else {}
        if self.teacher:
            told = joined([self.teacher[query.id].first(self._rewarded) for query in batch])
            if "kl" in self.edit.losses:
                ours, theirs = (s.logits.to(found.logits).log_softmax(-1) for s in (found, told))
                losses["kl"] = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
            if found.states is not None and told.states is not None:
                losses["mse"] = F.mse_loss(found.states, told.states.to(found.states))
        return losses

    def _said(self, batch: Sequence[Example], noise: Callable[[Tensor], Tensor] | None) -> tuple[Said, Tensor]:
        """What the edited model says at the answers' tokens, and these tokens."""
        prompts = [make_prompt(self._template, query) for query in batch]
        answers = [self.backbone.encode_answer(p, self._ended)[: self._rewarded] for p in prompts]
        parameters = {**self.constants, **self.weights}

        def attach(tokens: Callable[[], Tensor]) -> AbstractContextManager[Any]:
            parts = (type(self.edit), parameters, self.options, tokens, noise)
            return attached(self.backbone.model, self.backbone.site, *parts)

        when = self.edit.when(self.options)
        return said(self.backbone, prompts, answers, attach, when, self._observed), torch.cat(answers)

    def _noise(self, activations: Tensor) -> Tensor:
        """With Gaussian noise of `train.noise` of each token's length a dimension (I2CL)."""
        length = activations.detach().norm(dim=-1, keepdim=True)
        drawn = torch.randn(activations.shape, generator=self.generator).to(activations)
        return activations + self.config.train.noise * length * drawn

    def record(self, **values: float) -> None:
        """Keep this step's curves; at the end of an epoch, look at the validation loss first."""
        if self.patient.epochs:
            if self.step % self.per_epoch == 0:
                self._look()
            values["validation_loss"] = self.patient.loss
        super().record(**values)

    def _look(self) -> None:
        """Whether training is still worth it."""
        self.patient.look(self._validation_loss(), {name: v.detach() for name, v in self.weights.items()})
        self.trainer.should_stop = self.patient.over

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Cross-entropy of the validation answers, a mean over batches weighted by their tokens."""
        size, total, n = self.config.trainer.batch_size, 0.0, 0
        for start in range(0, len(self.task.validation), size):
            found, tokens = self._said(self.task.validation[start : start + size], None)
            total += float(F.cross_entropy(found.logits, tokens, reduction="sum"))
            n += len(tokens)
        return total / n

    def own_state(self) -> dict[str, Any]:
        return {"patient": {"loss": self.patient.loss, "since": self.patient.since, "best": self.patient.best}}

    def take_state(self, state: dict[str, Any]) -> None:
        vars(self.patient).update(state["patient"])

    def result(self) -> TrainedEdit:
        """The edit as it is inserted, with its origin as metadata."""
        metadata = made_by(self.config, fitted(self.backbone.site))
        found = self.patient.best or {name: value.detach() for name, value in self.weights.items()}
        return TrainedEdit(self.edit.name, {**self.constants, **found}, self.options, metadata, dict(self.history))
