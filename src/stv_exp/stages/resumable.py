"""What searches and trainings share: steps whose state is on disk, so that they go on where they were killed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import Generator

from stv_exp.models.backbone import COUNTED, Backbone
from stv_exp.stages.checkpoint import STATE
from stv_exp.stages.trainer import Stage


class Resumable(Stage):
    """Steps that it takes itself, bit for bit the same where they were interrupted: `step` of them are done.

    `history` holds a curve's values by name, `generator` whatever is drawn in a step. Parameters are kept by Lightning,
    `states` has the optimizer's of the earlier attempt, empty where there was none.
    """

    def __init__(self, backbone: Backbone, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # the state is its own, and some searches have no loss
        self.backbone = backbone
        self.generator = Generator().manual_seed(seed)
        self.history: defaultdict[str, list[float]] = defaultdict(list)
        self.step = 0
        self.states: dict[str, Any] = {}
        self._before = {name: getattr(backbone, name) for name in COUNTED}

    @property
    def spent(self) -> float:
        """Token-forwards since it was made, those of an earlier attempt included."""
        return self.backbone.token_forwards - self._before["token_forwards"]

    def own_state(self) -> dict[str, Any]:
        """What is to be kept beside step, curves, parameters and draws."""
        return {}

    def take_state(self, state: dict[str, Any]) -> None:
        """Go on from what `own_state` gave."""

    def record(self, **values: float) -> None:
        """Keep the curves' values of this step."""
        for name, value in values.items():
            self.history[name].append(value)
        if self.trainer.loggers:  # what Lightning keeps costs a millisecond
            self.log_dict(values, batch_size=1)
            row = len(next(iter(self.history.values()))) - 1
            self.log("step", float(row), batch_size=1)  # what goes on does so in its curve

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        counted = {name: getattr(self.backbone, name) - n for name, n in self._before.items()}
        state = {"step": self.step, "generator": self.generator.get_state(), "history": dict(self.history)}
        checkpoint[STATE] = {**state, "counted": counted, **self.own_state()}

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on from what `on_save_checkpoint` kept; the forwards of the earlier attempt count, its seconds do not."""
        state = checkpoint[STATE]
        self.load_state_dict(checkpoint["state_dict"])
        self.states = checkpoint
        self.step = state["step"]
        self.generator.set_state(state["generator"])
        self.history.update(state["history"])
        for name, n in state["counted"].items():  # what comes before the first step, done again, is among them
            setattr(self.backbone, name, self._before[name] + n)
        self.take_state(state)
