"""What a choice says about itself. Torch is imported where the work is done, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stv_exp.config import Config, setting

if TYPE_CHECKING:
    from torch import Tensor

    from stv_exp.artefacts.bank import Bank
    from stv_exp.artefacts.scan import Scan
    from stv_exp.methods.probe import Probe


@dataclass(frozen=True)
class Grid:
    """The locations that a model has at a site: H heads in L of its layers, or L layers (`n_heads` None).

    `numbers` are those of these layers within the model, where they are known.
    """

    model: str
    site: str
    n_layers: int
    n_heads: int | None = None
    numbers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.n_layers * (self.n_heads or 1)

    def __str__(self) -> str:
        if self.n_heads is None:
            return f"{len(self)} layers of {self.model} at the site {self.site}"
        return f"{len(self)} heads of {self.model} ({self.n_layers} layers x {self.n_heads} heads)"


class Choice:
    """One of the three choices of a method, made under the settings of a job.

    `reads` are the settings (dotted keys) that its result depends on: signatures follow from them, and a setting that
    no choice of a method reads is refused. `version` is raised by hand when its results would change.
    `location_search` are the stages that have to run before the locations are known. The first line of the docstring
    is what `--help` says.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    location_search: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config) -> None:
        self.config = config

    def settings(self) -> dict[str, Any]:
        """The settings that it reads, by their dotted keys."""
        return {key: setting(self.config, key) for key in self.reads}

    def needs(self, where: Where, what: What, how: How) -> str | None:
        """Which other choices it needs where it does not go with these, as in "what=mean"."""
        return None

    def check(self) -> None:
        """Raise `StvError` for settings that cannot work, before anything is loaded."""

    def check_grid(self, grid: Grid) -> None:
        """Raise `StvError` for settings that do not fit a model, before its weights are loaded."""


class Where(Choice):
    """Maps a scan to locations.

    One that has to ask the model for that says in `asks` which settings the answer depends on: `measure` is then a
    stage of its own, whose result the scan carries as `effects`.
    """

    kind = "where"
    inserts: ClassVar[bool] = True  # else no vector is looked for
    asks: ClassVar[tuple[str, ...]] = ()

    def locations(self, scan: Scan) -> Tensor:
        """Different places of the scan's grid, `[K, 2]` or `[K, 1]` at sites without heads."""
        raise NotImplementedError

    def scores(self, scan: Scan) -> Tensor | None:
        """What locations are ranked by, one number a location of the scan's grid; None where by nothing."""
        return None

    def count(self, grid: Grid) -> int:
        """How many locations it will give."""
        return self.config.method.k if "method.k" in self.reads else len(grid)

    def asked(self) -> int:
        """How many prompts `measure` asks at every location, for what a plan reckons."""
        return 0

    def measure(self, probe: Probe, scan: Scan) -> Tensor:
        """One number a location of the scan's grid, by asking the model."""
        raise NotImplementedError


class What(Choice):
    """Maps the activations at the locations to candidates.

    Of heads, it may make one vector that is a candidate at every location of another site, `moves_to`: see `moved`.
    """

    kind = "what"
    many: ClassVar[bool] = True  # whether a location may have more than one
    moves_to: ClassVar[str] = ""

    def candidates(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates `[K, M, D]` and how many activations each stands for `[K, M]`, of activations `[K, T, D]`.

        Each location's candidates depend on its own activations only: the bank is built in batches of locations.
        """
        raise NotImplementedError

    def moved(self, images: Tensor) -> Tensor:
        """Candidates `[M, hidden]` at every location of `moves_to`, of what the heads' would write `[K, M, hidden]`."""
        raise NotImplementedError


class How(Choice):
    """Picks one candidate a location, or none, or mixes them; without asking the model, unless it is a `Search`."""

    kind = "how"
    classifies: ClassVar[bool] = False  # whether it is a `Classifier`, which inserts nothing

    @property
    def may_decline(self) -> bool:
        """Whether choice M, "leave this location alone", is allowed."""
        return False

    def choose(self, bank: Bank) -> Tensor:
        """One choice a location `[K]`: the index of a candidate, or M to leave the location alone."""
        raise NotImplementedError
