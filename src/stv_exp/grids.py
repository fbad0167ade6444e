"""The jobs of a sweep: a grid, and in each of its points lines of methods and tasks that are small grids themselves."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from stv_exp.errors import StvError


def parse_variant(line: object, parser: OverridesParser, key: str = "variants") -> list[Override]:
    """The overrides of one line of `key`; `StvError` where it is not a grid of them."""
    try:
        if not isinstance(line, str):
            raise ValueError("it is no text")  # but a mapping, of `- method: stv`
        found = parser.parse_overrides(shlex.split(line))
        grid(found)  # refuses what only other sweepers can sweep over, such as interval(0, 1)
    except (ValueError, HydraException) as error:
        raise StvError(
            f"hydra.sweeper.{key}: the line {str(line)!r} cannot be read ({_reason(error)}); "
            "write it as on the command line, such as method=few_shot method.shots=1,5."
        ) from error
    return found


def job_overrides(
    params: Sequence[Override],
    given: Sequence[Override],
    variants: Sequence[Sequence[Override]],
    tasks: Sequence[Sequence[Override]] = (),
) -> list[list[str]]:
    """The overrides of each job, once each: all variants of all tasks in each point of the grid of both overrides.

    `given`, the command line, wins over all. A variant or task wins over `params`, as it is the more specific one.
    """
    taken = _keys(given)
    variants, tasks = _unless_given(variants, "method", taken), _unless_given(tasks, "dataset.task", taken)
    if not variants and not tasks:
        return once(grid([*params, *given]))
    points = grid([*_without(taken, params), *given])
    lines = [_without(taken, [*task, *variant]) for task in tasks or [()] for variant in variants or [()]]
    own = [(_keys(line), grid(line)) for line in lines]
    return once([*_less(point, keys), *chosen] for point in points for keys, line in own for chosen in line)


def _unless_given(lines: Sequence[Sequence[Override]], key: str, taken: set[str]) -> Sequence[Sequence[Override]]:
    """None of the lines where one has a `key` that is given: other settings of a line belong to its own value of it."""
    return [] if key in taken and any(key in _keys(line) for line in lines) else lines


def parsed(
    params: Mapping[Any, Any],
    given: Sequence[Override],
    variants: Sequence[object],
    tasks: Sequence[object],
    parser: OverridesParser,
) -> tuple[list[Override], Sequence[Override], list[list[Override]], list[list[Override]]]:
    """What is written in an experiment, for `job_overrides`; raises `StvError` for a line that is no grid."""
    words = [f"{key}={value}" for key, value in params.items()]
    methods = [parse_variant(line, parser) for line in variants]
    return parser.parse_overrides(words), given, methods, [parse_variant(line, parser, "tasks") for line in tasks]


def subset(jobs: Sequence[list[str]], n: int | None, seed: int) -> list[list[str]]:
    """`n` of the jobs, in their order; all of them without it, or where there are fewer."""
    if n is None or n >= len(jobs):
        return list(jobs)
    if n < 1:
        raise StvError(f"hydra.sweeper.subset={n} is not possible; it must be at least 1.")
    return [jobs[i] for i in sorted(random.Random(seed).sample(range(len(jobs)), n))]


def grid(overrides: Sequence[Override]) -> list[list[str]]:
    """The product, the first override varying slowest."""
    (jobs,) = BasicSweeper.split_arguments(list(overrides), None)
    return jobs


def once(jobs: Iterable[list[str]]) -> list[list[str]]:
    """The jobs without doubles, in their order."""
    return [list(job) for job in dict.fromkeys(map(tuple, jobs))]


def _without(keys: set[str], overrides: Iterable[Override]) -> list[Override]:
    return [o for o in overrides if plain(o.get_key_element()) not in keys]


def _less(point: Iterable[str], keys: set[str]) -> list[str]:
    return [text for text in point if plain(text) not in keys]


def _keys(overrides: Iterable[Override]) -> set[str]:
    return {plain(o.get_key_element()) for o in overrides}


def plain(text: str) -> str:
    """The key of `key=value` without Hydra's prefix for adding or deleting it."""
    return text.partition("=")[0].lstrip("+~")


def _reason(error: Exception) -> str:
    """What Hydra says, without its link and the arrow below the text."""
    lines = str(error).partition("\nSee ")[0].split("\n")
    return ": ".join(line for line in (line.strip(" ^") for line in lines) if line)
