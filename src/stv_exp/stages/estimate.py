"""What a stage will cost, reckoned from the settings and the length of a few prompts: no weights are loaded for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from math import ceil
from statistics import fmean
from typing import Any

from stv_exp.config import Config, learned_from
from stv_exp.data.demonstrations import DemonstrationSampler
from stv_exp.data.loader import load_task
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Task
from stv_exp.methods.method import Method
from stv_exp.methods.search import Search
from stv_exp.models.backbone import Backbone
from stv_exp.models.loading import load_skeleton, model_grid
from stv_exp.stages.budget import affordable
from stv_exp.stages.effects import BRANCHES
from stv_exp.stages.reading import labelled

SAMPLE = 8  # prompts whose length stands for all
_tasks: dict[str, Task] = {}
_lengths: dict[str, float] = {}
_skeleton = cache(load_skeleton)


@dataclass(frozen=True)
class Estimate:
    """Calls of the model and the tokens that pass through it, padding left out."""

    forwards: int = 0
    tokens: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.forwards + other.forwards, self.tokens + other.tokens)


def estimate(stage: str, config: Config) -> Estimate:
    """What a stage (scan, effects, bank, policy, train, evaluation) will cost; raises `StvError` where it cannot."""
    return _STAGES[stage](config)


def _scan(config: Config) -> Estimate:
    """T queries behind their demonstrations, and alone; for a classifier, those with labels alone."""
    if Method.of(config).classifies:
        asked = len(labelled(_task(config), config))
        return Estimate(_batches(asked, config), asked * _prompt(config, 0))
    pairs = config.scan.pairs
    return Estimate(_batches(2 * pairs, config), pairs * (_prompt(config, config.scan.shots) + _prompt(config, 0)))


def _effects(config: Config) -> Estimate:
    """The prefix of each prompt once, and a token for every location behind it, and for none."""
    where, grid = Method.of(config).where, model_grid(config)
    asked = where.asked()
    together = min(asked, config.trainer.batch_size)
    parts = ceil(len(grid) / max(1, BRANCHES // max(1, together)))  # of the locations, each with what branches share
    prompt = _prompt(config, config.scan.shots)
    forwards, tokens = _batches(asked, config) * (2 + 2 * parts), asked * (prompt + len(grid) + parts)
    return Estimate(forwards, tokens)


def _policy(config: Config) -> Estimate:
    """The prefix of each query once, and the tokens of the candidates behind it."""
    how, n_support = Method.of(config).how, len(_task(config).support)
    if not isinstance(how, Search):
        return Estimate()
    n_locations = _locations(config)
    answer = 1.0 if config.policy.reward == "first" else _answer(config, config.policy.reward == "ended")
    prompt, steps = _prompt(config, 0), how.affordable_steps(n_support, n_locations, answer)
    if config.budget:
        spent = _scan(config).tokens + (_effects(config).tokens if Method.of(config).where.asks else 0)
        sizes: dict[str, Any] = {"n_support": n_support, "n_locations": n_locations}
        cost = partial(how.token_forwards, **sizes, prefix=prompt, tried=answer, other=answer)
        steps = affordable(config, spent, cost, steps)
    final = how.final_evaluations(n_support, n_locations)
    asked = min(steps * config.policy.queries, n_support)
    prefixes = _batches(asked, config) if steps * config.policy.queries >= n_support else asked
    candidates = steps * how.step_evaluations() + final
    passes = prefixes + steps + how.final_passes(n_support, n_locations)
    queries = how.asked(steps, n_support)
    return _settling(prompt) + Estimate(passes, queries * (prompt - 1) + candidates * answer)


def _settling(prompt: float) -> Estimate:
    """Finding out how a search scores prompts of a length: two in full, as trees, and as trees that start late."""
    return Estimate(10, 8 * prompt)


def _train(config: Config) -> Estimate:
    """The teacher's prompts, if there is one, and the batches that gradients come from; a start from means is small."""
    n, train, edit = len(_task(config).support), config.train, Method.of(config).edit
    answer = _answer(config, train.to_the_end)
    behind = _prompt(config, train.shots) + answer - 1 if edit.taught else 0
    each = train.batch * (_prompt(config, 0) + answer - 1)
    steps = affordable(config, n * behind, lambda steps: 3 * steps * each, train.epochs * edit.per_epoch(n))
    calls = steps + (_batches(n, config) if behind else 0)
    return Estimate(calls, n * behind + steps * each)


def _evaluation(config: Config) -> Estimate:
    """Each query behind its shots, and as many new tokens as its answer has, or as there are labels to compare."""
    task, answer = _task(config), _answer(config)
    queries = len(task.evaluation) + len(task.validation)
    batches = _batches(len(task.evaluation), config) + _batches(len(task.validation), config)
    if Method.of(config).classifies:
        calls, more = 1.0, 0.0
    elif config.dataset.metric == "likelihood":
        calls, more = 1.0 + len(task.labels), len(task.labels) * answer
    else:
        calls = min(answer, config.dataset.max_new_tokens)
        more = calls - 1
    return Estimate(ceil(batches * calls), queries * (_prompt(config, config.method.shots) + more))


_STAGES: dict[str, Callable[[Config], Estimate]] = {
    "scan": _scan,
    "effects": _effects,
    "bank": lambda _: Estimate(),
    "policy": _policy,
    "train": _train,
    "evaluation": _evaluation,
}


def _locations(config: Config) -> int:
    """Of the bank that a search is handed."""
    method = Method.of(config)
    if method.what.moves_to:
        return len(_skeleton(config.model).site(method.what.moves_to))
    return method.where.count(model_grid(config))


def _batches(n: int, config: Config) -> int:
    return ceil(n / config.trainer.batch_size)


def _task(config: Config) -> Task:
    key = f"{config.dataset} {config.fit}"
    if key not in _tasks:
        _tasks[key] = load_task(config)
    return _tasks[key]


def _prompt(config: Config, shots: int) -> float:
    """Tokens of a prompt in the mean over a few."""

    def length(backbone: Backbone, prompt: Prompt) -> int:
        return backbone.count_tokens([prompt])

    return _mean(f"prompt {shots}", config, shots, length)


def _answer(config: Config, ended: bool = False) -> float:
    """Tokens of an answer in the mean over a few, with what ends it if `ended`."""

    def length(backbone: Backbone, prompt: Prompt) -> int:
        return len(backbone.encode_answer(prompt, ended))

    return _mean(f"answer {ended}", config, 0, length)


def _mean(kind: str, config: Config, shots: int, length: Callable[[Backbone, Prompt], int]) -> float:
    key = f"{kind} {asdict(config.model)} {config.dataset} {config.fit}"
    if key not in _lengths:
        task, backbone = _task(config), _skeleton(config.model)
        sampler = DemonstrationSampler(task, 0)
        template, queries = learned_from(config).template, task.support[:SAMPLE]
        prompts = [make_prompt(template, q, sampler.draw(q, shots, "length")) for q in queries]
        _lengths[key] = fmean(length(backbone, prompt) for prompt in prompts)
    return _lengths[key]
