"""The policy (STV, step 3; MTV's mask search): REINFORCE over insertions, scored on zero-shot support queries."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from lightning.pytorch.loggers import Logger
from torch import Generator, Tensor
from torch.utils.data import DataLoader, RandomSampler

from stv_exp.artefact import Artefact
from stv_exp.config import Config
from stv_exp.data.prompts import Prompt, make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.models.backbone import Backbone
from stv_exp.models.heads import Insertion
from stv_exp.models.scoring import Scorer
from stv_exp.stages.bank import Bank
from stv_exp.stages.candidates import Candidates, ClusterCandidates, MaskCandidates
from stv_exp.stages.trainer import Items, Stage, make_trainer

REFERENCE_SAMPLES = 1  # draws a query from the uninformed search: the line that a policy has to beat


@dataclass(frozen=True, eq=False)
class Chosen(Artefact):
    """The insertion that was chosen, location by location, and how the search went.

    `choices [K]` index the candidates, `active [K]` is false where a head is left alone, `history` holds one
    list a column. `candidate_evaluations` counts what the search learned from or selected by;
    `scoring` is how they were scored (tree, repeat or full; empty without a search).
    """

    choices: Tensor
    locations: Tensor
    vectors: Tensor
    active: Tensor
    history: dict[str, list[float]]
    candidate_evaluations: int
    scoring: str


def choose(backbone: Backbone, task: Task, bank: Bank, config: Config, logger: Logger | None = None) -> Chosen:
    """Pick one candidate a location by `method.how`: not at all, at random, or by REINFORCE."""
    candidates = make_candidates(bank, config)
    if config.method.how == "reinforce":
        return search(backbone, task, candidates, config, logger)
    if config.method.how == "random":
        choices = candidates.sample(1, 1, Generator().manual_seed(config.seed))[0, 0]
    else:
        choices = torch.zeros(len(bank.locations), dtype=torch.long)
    return _chosen(candidates, choices, {}, 0, "")


def make_candidates(bank: Bank, config: Config) -> Candidates:
    """The distribution that goes with `method.where`: masks where locations are learned, else clusters."""
    if config.method.where == "learned":
        return MaskCandidates(bank, config.insertion.mode)
    return ClusterCandidates(bank, config.insertion.mode, config.bank.identity)


def search(
    backbone: Backbone, task: Task, candidates: Candidates, config: Config, logger: Logger | None = None
) -> Chosen:
    """REINFORCE under the budget of `config.policy`; a mask's final selection is paid from the same budget."""
    module = ReinforcePolicy(backbone, candidates, config)
    policy = config.policy
    if policy.queries > len(task.support):
        raise StvError(
            f"policy.queries={policy.queries} exceeds the {len(task.support)} support examples of {task.name}; "
            "lower it or raise dataset.support."
        )
    selecting = isinstance(candidates, MaskCandidates)
    per_step = policy.queries * policy.samples
    selection = policy.selection_draws * min(policy.selection_items, len(task.support)) if selecting else 0
    steps = policy.steps - -(-selection // per_step)
    if steps < 1:
        raise StvError(
            f"policy.steps={policy.steps} x {per_step} evaluations leave none after the final selection's {selection}; "
            "raise policy.steps or lower policy.selection_draws."
        )
    module.prepare(task, warm=steps * policy.queries >= len(task.support))
    fit(module, task, steps, logger)
    choices = module.select(task) if selecting else candidates.logits.detach().argmax(-1)
    evaluations = steps * per_step + selection
    return _chosen(candidates, choices, dict(module.history), evaluations, module.scorer.way)


def fit(module: ReinforcePolicy, task: Task, steps: int, logger: Logger | None = None) -> None:
    """Train on epochs of a shuffled support split: a query comes again only when all have been asked."""
    config = module.config
    order = RandomSampler(task.support, generator=Generator().manual_seed(config.seed))
    loader = DataLoader(Items(task.support), config.policy.queries, sampler=order, collate_fn=list, drop_last=True)
    make_trainer(config.trainer, inference=False, logger=logger, max_steps=steps, max_epochs=-1).fit(module, loader)


class ReinforcePolicy(Stage):
    """One step: S sampled insertions a query, reward -CE of the answer, advantage standardised within the query."""

    def __init__(self, backbone: Backbone, candidates: Candidates, config: Config) -> None:
        super().__init__()
        self.candidates = candidates
        self.config = config
        self.history: defaultdict[str, list[float]] = defaultdict(list)
        self.scorer = Scorer(backbone, config.policy.cache_bytes)
        self.generator = Generator().manual_seed(config.seed)
        self._uninformed = candidates.logits.detach().clone()
        self._answers: dict[str, Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.candidates.parameters(), lr=self.config.policy.lr)

    def training_step(self, queries: list[Example], batch_idx: int) -> Tensor:
        samples = self.config.policy.samples
        drawn = self.candidates.sample(len(queries), samples, self.generator)
        reference = self.candidates.sample(len(queries), REFERENCE_SAMPLES, self.generator, self._uninformed)
        rewards = self.rewards(queries, self.candidates.insertion(torch.cat([drawn, reference], 1)))
        advantage = standardise(rewards[:, :samples])
        self._record(rewards[:, :samples], rewards[:, samples:])
        return -(advantage * self.candidates.log_prob(drawn)).mean()

    def rewards(self, queries: Sequence[Example], insertion: Insertion) -> Tensor:
        """Reward `[Q, S]`: mean log-likelihood of the first or of all answer tokens; raises `StvError` on NaN."""
        prompts = [self.prompt(q) for q in queries]
        answers = [self._answer(prompt) for prompt in prompts]
        if self.config.policy.reward == "first":
            answers = [a[:1] for a in answers]
        lengths = torch.tensor([len(a) for a in answers], device=self.scorer.backbone.device)
        # A clone outside inference mode: autograd may keep it for the surrogate's backward.
        total = self.scorer.score(prompts, answers, insertion, self.config.insertion.when).sum(-1)
        rewards = (total / lengths[:, None]).cpu().clone()
        if not torch.isfinite(rewards).all():
            raise StvError(
                f"The reward on query {queries[0].id} is NaN or infinite; check the weights or use model.dtype=float32."
            )
        return rewards

    def prepare(self, task: Task, warm: bool) -> None:
        """Settle how candidates are scored; with `warm` compute the prefixes of the whole support split in batches."""
        prompts = sorted((self.prompt(q) for q in task.support), key=lambda p: len(p.text))
        ends = [prompts[0], prompts[-1]]
        self.scorer.choose(ends, [self._answer(p) for p in ends])
        if warm:
            self.scorer.warm(prompts, self.config.trainer.batch_size)

    def prompt(self, query: Example) -> Prompt:
        """The query alone, as it is asked once the vector stands for the demonstrations."""
        return make_prompt(self.config.dataset.template, query)

    @torch.no_grad()
    def select(self, task: Task) -> Tensor:
        """MTV's last step: the best of `selection_draws` masks by reward on `selection_items` support queries."""
        policy = self.config.policy
        draws = self.candidates.sample(1, policy.selection_draws, self.generator)
        items = random.Random(self.config.seed).sample(task.support, min(policy.selection_items, len(task.support)))
        total = torch.zeros(policy.selection_draws)
        for start in range(0, len(items), self.config.trainer.batch_size):
            queries = items[start : start + self.config.trainer.batch_size]
            total += self.rewards(queries, self.candidates.insertion(draws)).sum(0)
        return draws[0, total.argmax()]

    def _answer(self, prompt: Prompt) -> Tensor:
        query = prompt.query
        if query.id not in self._answers:
            encode = self.scorer.backbone.encode_answer
            self._answers[query.id] = encode(prompt, self.config.dataset.template)
        return self._answers[query.id]

    def _record(self, rewards: Tensor, reference: Tensor) -> None:
        values = {
            "reward": rewards.mean().item(),
            "reward_random": reference.mean().item(),
            "entropy": self.candidates.entropy().item(),
        }
        for name, value in values.items():
            self.history[name].append(value)
        self.log_dict(values, prog_bar=True, batch_size=1)


def standardise(rewards: Tensor, eps: float = 1e-6) -> Tensor:
    """Advantages: `(r - mean) / (std + eps)` within each query's samples, `[Q, S]`."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + eps)


def _chosen(
    candidates: Candidates, choices: Tensor, history: dict[str, list[float]], evaluations: int, scoring: str
) -> Chosen:
    insertion = candidates.insertion(choices)
    active = insertion.active
    kept = torch.ones(len(choices), dtype=torch.bool) if active is None else active
    insertion = replace(insertion, vectors=insertion.vectors[kept], locations=insertion.locations[kept])
    return Chosen(choices, insertion.locations, insertion.vectors, kept, history, evaluations, scoring)
