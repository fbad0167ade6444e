"""What a sweep has to do (`plan=true`): which jobs are done, which stages are there, what the rest costs.

Costs are reckoned from the settings and the length of a few prompts, without weights: forwards are calls of the model,
tokens what passes through it. What jobs share counts for the first that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stv_exp.config import Config
from stv_exp.disk.store import Store
from stv_exp.errors import StvError
from stv_exp.identity import signatures
from stv_exp.jobs import run_of
from stv_exp.report.screen import print_line, print_table
from stv_exp.report.stages import STAGES
from stv_exp.report.tables import Table
from stv_exp.stages.estimate import Estimate, estimate
from stv_exp.title import titles


@dataclass(frozen=True)
class Planned:
    """One job: its title, its state, what it has yet to compute, and the sentence of one that cannot be paid for."""

    title: str
    state: str
    cost: Estimate = field(default_factory=Estimate)
    refusal: str = ""


def show_plan(configs: Sequence[Config]) -> dict[str, str]:
    """Print the jobs and what they cost together; of those that cannot be paid for, returns why by their title."""
    jobs = planned(configs)
    rows = [[job.title, job.state, f"{job.cost.forwards:,}", f"{job.cost.tokens:,.0f}"] for job in jobs]
    print_table(Table("plan", f"{len(jobs)} jobs", ["job", "state", "forwards", "tokens"], rows))
    total = sum((job.cost for job in jobs), Estimate())
    done = sum(job.state == "done" for job in jobs)
    print_line(
        f"{done} of {len(jobs)} jobs are done; the others take about {total.forwards:,} forwards of "
        f"{total.tokens:,.0f} tokens. Nothing was run."
    )
    return {job.title: job.refusal for job in jobs if job.refusal}


def planned(configs: Sequence[Config]) -> list[Planned]:
    """The jobs in their order; a stage that several need is the first one's."""
    seen: set[str] = set()
    return [_planned(config, title, seen) for config, title in zip(configs, titles(configs), strict=True)]


def _planned(config: Config, title: str, seen: set[str]) -> Planned:
    if config.job != "run":
        return Planned(title, "to run")
    names = signatures(config)
    if run_of(config).metrics is not None:
        return Planned(title, "done")
    if names.run in seen:
        return Planned(title, "the same as another")
    needed = {stage: name for stage in STAGES if (name := getattr(names, stage))}
    kept = [stage for stage, name in needed.items() if Store(config.outputs).holds(stage, name)]
    shared = [stage for stage, name in needed.items() if name in seen]
    left = [stage for stage in needed if stage not in {*kept, *shared}]
    try:
        cost = sum((estimate(stage, config) for stage in [*left, "evaluation"]), Estimate())
    except StvError as error:
        return Planned(title, "refused", refusal=str(error))
    seen |= {names.run, *needed.values()}
    return Planned(title, f"cached in part ({', '.join(kept)})" if kept else "to run", cost)
