"""The search (STV, step 3): one candidate a location, by the reward of zero-shot support queries."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from lightning.pytorch.loggers import Logger
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader

from stv_exp.artefacts.bank import Bank
from stv_exp.artefacts.chosen import Chosen
from stv_exp.config import Config, learned_from
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.methods.guard import blamed, checked_choices
from stv_exp.methods.method import Method
from stv_exp.methods.search import Search
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Edit, Insertion
from stv_exp.models.scorer import Scorer
from stv_exp.progress import Meter
from stv_exp.stages.budget import affordable, search_cost
from stv_exp.stages.checkpoint import SearchCheckpoint, newest
from stv_exp.stages.resumable import Resumable
from stv_exp.stages.trainer import Items, make_trainer

log = logging.getLogger(__name__)


def choose(
    backbone: Backbone,
    task: Task,
    bank: Bank,
    config: Config,
    logger: Logger | None = None,
    folder: Path | None = None,
    spent: float = 0.0,
) -> Chosen:
    """Pick one candidate a location by `method.how`; a search keeps its state in `folder` and goes on from there.

    `spent` token-forwards are gone of `config.budget`.
    """
    how = Method.of(config).how
    if isinstance(how, Search):
        return search(CandidateSearch(backbone, task, bank, how, config, spent), logger, folder)
    with blamed(how):
        choices = how.choose(bank)
    return _chosen(bank, checked_choices(how, bank, choices), {}, 0, "")


def search(module: CandidateSearch, logger: Logger | None = None, folder: Path | None = None) -> Chosen:
    """Search under the budget of `config.policy`; what the final decision costs is paid from it."""
    how, n_support = module.how, len(module.support)
    module.prepare()
    if folder and (state := newest(folder)):
        module.resume(state)
        log.info("The search goes on at step %d of %d", module.step, module.steps)
    fit(module, logger, folder)
    with blamed(how), torch.no_grad():
        choices = how.decide(module)
    final = how.final_evaluations(n_support, len(module.bank.locations))
    evaluations = module.steps * how.step_evaluations() + final
    choices = checked_choices(how, module.bank, choices)
    return _chosen(module.bank, choices, dict(module.history), evaluations, module.scorer.way)


def fit(module: CandidateSearch, logger: Logger | None = None, folder: Path | None = None) -> None:
    """Run the steps of a search that are left, each on its queries."""
    left = module.queries()[module.step :]
    kept = [SearchCheckpoint(folder)] if folder else []
    settings = module.config.trainer
    meter = Meter(module.stage, module.steps, module.step, settings.progress_bar)
    trainer = make_trainer(settings, False, logger, kept, meter, max_epochs=1)
    if left:
        trainer.fit(module, DataLoader(Items(left), batch_size=None))


def check(task: Task, config: Config) -> None:
    """Raise `StvError` where a step would ask more queries than there are."""
    if "policy.queries" in Method.of(config).how.reads and config.policy.queries > len(task.support):
        raise StvError(
            f"policy.queries={config.policy.queries} exceeds the {len(task.support)} support examples of "
            f"{task.name}; lower it or raise dataset.support."
        )


class CandidateSearch(Resumable):
    """Runs a `Search` step by step: the `Problem` that it is handed."""

    stage = "search"

    def __init__(
        self, backbone: Backbone, task: Task, bank: Bank, how: Search, config: Config, spent: float = 0.0
    ) -> None:
        super().__init__(backbone, config.seed)
        check(task, config)
        self.bank = bank
        self.how = how
        self.config = config
        self.support = task.support
        self.scorer = Scorer(backbone, config.policy.cache_bytes)
        self.edit = Edit(config.insertion.mode, config.insertion.weight, config.insertion.norm_preserving)
        self.logits = nn.Parameter(how.start(bank))
        self._answers: dict[str, Tensor] = {}
        self._template = learned_from(config).template
        self._rewarded = 1 if config.policy.reward == "first" else None  # of an answer's tokens; None: all
        self._ended = config.policy.reward == "ended"
        self.steps = self._affordable(spent)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam([self.logits], lr=self.config.policy.lr)
        if self.states:
            optimizer.load_state_dict(self.states["optimizer_states"][0])
        return optimizer

    def training_step(self, queries: list[Example], batch_idx: int) -> None:
        with blamed(self.how):
            loss = self.how.step(self, queries)
        optimizer: torch.optim.Optimizer = self.optimizers()  # type: ignore[assignment]
        optimizer.zero_grad()
        if loss is not None:
            self.manual_backward(loss)
        optimizer.step()  # without a gradient it changes nothing, but Lightning counts the steps
        self.step += 1

    def rewards(self, queries: Sequence[Example], choices: Tensor) -> Tensor:
        """Reward `[Q, S]` of choices `[Q or 1, S, K]`: mean log-likelihood of answer tokens (`policy.reward`)."""
        return self._rewards(queries, insertion(self.bank, choices, self.edit)).clone()

    def mixed_rewards(self, queries: Sequence[Example], shares: Tensor) -> Tensor:
        """Reward `[Q, S]`, differentiable in `shares [Q or 1, S, K, M (+ 1)]`: each candidate enters by its share."""
        return self._rewards(queries, mixture(self.bank, shares, self.edit))

    def record(self, **values: float) -> None:
        """Keep the curves' values of this step; raises `StvError` where they are not those of the first."""
        if self.history and {*values} != {*self.history}:
            raise StvError(
                f"method.how={self.how.name} records {', '.join(sorted(values))} in step {self.step} and recorded "
                f"{', '.join(sorted(self.history))} before; record the same names in each step."
            )
        super().record(**values)

    def queries(self) -> list[list[Example]]:
        """The queries of each step: epochs of a shuffled support split, so that each is asked before any again."""
        pick = Generator().manual_seed(self.config.seed)
        n, batches = self.config.policy.queries, list[list[Example]]()
        while len(batches) < self.steps:
            epoch = [self.support[i] for i in torch.randperm(len(self.support), generator=pick).tolist()]
            batches += [epoch[i : i + n] for i in range(0, len(epoch) - n + 1, n)]
        return batches[: self.steps]

    def prepare(self) -> None:
        """Settle how candidates are scored; where every query will be asked, compute all prefixes in batches."""
        prompts = self._settle()
        if self.steps * self.config.policy.queries >= len(self.support):
            answers = [self._answer(p)[: self._rewarded] for p in prompts]
            where = self.edit.insertion(self.bank.locations, self.bank.centroids[:, 0], site=self.bank.site)
            with Meter("prefixes", len(prompts), bar=self.config.trainer.progress_bar) as meter:
                self.scorer.warm(prompts, answers, self.config.trainer.batch_size, where, meter.advance)

    def _settle(self) -> list[Prompt]:
        """The support's prompts, shortest first, once it is known how candidates of the shortest and longest score."""
        prompts = sorted((self._prompt(q) for q in self.support), key=lambda p: len(p.text))
        ends = [prompts[0], prompts[-1]]
        if not self.scorer.way:
            self.scorer.choose(ends, [self._answer(p) for p in ends])
        return prompts

    def _affordable(self, spent: float) -> int:
        """Steps within the budgets, beside the final decision; raises `StvError` where there is none."""
        n, k, answers = len(self.support), len(self.bank.locations), dict[str, int]()
        if self.config.policy.budget or self.config.budget:
            answers = {q.id: len(self._answer(self._prompt(q))[: self._rewarded]) for q in self.support}
        self.steps = self.how.affordable_steps(n, k, fmean(answers.values()) if answers else float("nan"))
        if not self.config.budget:
            return self.steps
        backbone = self.backbone
        prefixes = {prompt.query.id: backbone.count_tokens([prompt]) - 1 for prompt in self._settle()}
        if self.scorer.way == "full":
            prefixes, answers = dict.fromkeys(prefixes, 0), {q: prefixes[q] + n for q, n in answers.items()}
        elif self.scorer.late:
            prefixes = {q: n + answers[q] for q, n in prefixes.items()}  # of a branch with nothing inserted
        asked = [[query.id for query in batch] for batch in self.queries()]
        return affordable(
            self.config, spent + self.spent, search_cost(self.how, k, prefixes, answers, asked), self.steps
        )

    def _rewards(self, queries: Sequence[Example], chosen: Insertion) -> Tensor:
        prompts = [self._prompt(q) for q in queries]
        answers = [self._answer(prompt)[: self._rewarded] for prompt in prompts]
        lengths = torch.tensor([len(a) for a in answers], device=self.backbone.device)
        total = self.scorer.score(prompts, answers, chosen, self.config.insertion.when).sum(-1)
        rewards = (total / lengths[:, None]).cpu()
        if not torch.isfinite(rewards).all():
            raise StvError(
                f"The reward on query {queries[0].id} is NaN or infinite; check the weights or use model.dtype=float32."
            )
        return rewards

    def _prompt(self, query: Example) -> Prompt:
        """The query alone, as it is asked once the vector stands for the demonstrations."""
        return make_prompt(self._template, query)

    def _answer(self, prompt: Prompt) -> Tensor:
        query = prompt.query
        if query.id not in self._answers:
            encode = self.backbone.encode_answer
            self._answers[query.id] = encode(prompt, self._ended)
        return self._answers[query.id]


def insertion(bank: Bank, choices: Tensor, edit: Edit) -> Insertion:
    """The insertion that choices `[..., K]` stand for; M leaves a location alone."""
    m = bank.centroids.shape[1]
    vectors = bank.centroids[torch.arange(choices.shape[-1]), choices.clamp(max=m - 1)]
    active = choices < m
    return edit.insertion(bank.locations, vectors, None if active.all() else active, bank.site)


def mixture(bank: Bank, shares: Tensor, edit: Edit) -> Insertion:
    """Every candidate by its share `[..., K, M (+ 1)]`; what is left of 1 is the location's own activation."""
    m = bank.centroids.shape[1]
    values, keep = edit.applied(bank.centroids)  # [K, M, D], [K, M]
    mixed = torch.einsum("...km,kmd->...kd", shares[..., :m], values)
    kept = shares[..., m:].sum(-1)
    if keep is not None:
        kept = kept + (shares[..., :m] * keep).sum(-1)
    return Insertion(bank.locations, mixed, kept, bank.site, edit.norm_preserving)


def _chosen(bank: Bank, choices: Tensor, history: dict[str, list[float]], evaluations: int, scoring: str) -> Chosen:
    """From choices `[K]`, or from shares `[K, C]` of each location's candidates."""
    m = bank.centroids.shape[1]
    if choices.is_floating_point():
        return _mixed(bank, choices, history, evaluations, scoring)
    kept = choices < m
    vectors = bank.centroids[kept, choices[kept]]
    return Chosen(choices, bank.locations[kept], vectors, kept, history, evaluations, scoring)


def _mixed(bank: Bank, shares: Tensor, history: dict[str, list[float]], evaluations: int, scoring: str) -> Chosen:
    """What `mixture` inserts, as vectors and their weights: w * (candidates' mean) + (1 - w) * own activation."""
    candidates = shares[:, : bank.centroids.shape[1]]
    weights = candidates.sum(-1)
    kept = weights > 0
    vectors = torch.einsum("km,kmd->kd", candidates[kept] / weights[kept, None], bank.centroids[kept])
    found = shares.argmax(-1), bank.locations[kept], vectors, kept
    return Chosen(*found, history, evaluations, scoring, weights[kept])
