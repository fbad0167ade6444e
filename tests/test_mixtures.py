"""Mixtures under a prior, a price or in an ensemble: without these they are the plain one, with them what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stv_exp.check_config import checked
from stv_exp.config import BankConfig, Config
from stv_exp.errors import StvError
from stv_exp.methods.method import Method
from stv_exp.stages.bank import build_bank
from stv_exp.stages.scan import scan
from stv_exp.stages.search import CandidateSearch, choose
from tests.conftest import with_method

EVERY_HEAD = {"where": "sensitivity", "k": 16}


@pytest.fixture
def searched(config: Config) -> Config:
    policy = replace(config.policy, steps=30, queries=4, lr=0.3)
    return replace(with_method(config, how="regularised_mixture", **EVERY_HEAD), policy=policy, bank=BankConfig(True))


def found(backbone, task, config, **policy):
    config = replace(config, policy=replace(config.policy, **policy))
    return choose(backbone, task, build_bank(scan(backbone, task, config), config), config)


@pytest.mark.parametrize(("how", "policy"), [("regularised_mixture", {}), ("ensemble", {"members": 1})])
def test_without_a_price_or_other_members_it_is_the_plain_mixture(backbone, task, searched, how, policy):
    plain = found(backbone, task, with_method(searched, how="mixture"))
    other = found(backbone, task, with_method(searched, how=how), **policy)
    torch.testing.assert_close(plain.vectors, other.vectors, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain.weights, other.weights, rtol=0, atol=1e-4)
    assert plain.history["loss"] == pytest.approx(other.history["loss"], abs=1e-4)


def test_a_price_on_insertions_makes_them_fewer_and_one_on_doubt_makes_them_sure(backbone, task, searched):
    """Three prices of an insertion: what is inserted falls with each; and a price of indecision lowers the entropy."""
    inserted = [found(backbone, task, searched, sparsity=price).weights.sum() for price in (0, 0.3, 3)]
    assert inserted[0] > inserted[1] > inserted[2]
    free, sure = (found(backbone, task, searched, entropy=price).history["entropy"][-1] for price in (0, 1))
    assert sure < free


def test_what_is_inserted_by_less_than_the_threshold_is_left_out(backbone, task, searched):
    every = found(backbone, task, searched, sparsity=0.3)
    some = found(backbone, task, searched, sparsity=0.3, threshold=0.5)
    kept = every.weights >= 0.5
    assert 0 < kept.sum() < len(every.weights), "the test is to have both kinds"
    assert torch.equal(some.active, kept) and torch.equal(some.vectors, every.vectors[kept])
    assert torch.equal(some.weights, every.weights[kept])


def test_a_prior_inserts_sooner_where_demonstrations_change_more(backbone, task, searched):
    config = replace(searched, policy=replace(searched.policy, prior=1.0))
    bank = build_bank(scan(backbone, task, config), config)
    own = Method.of(config).how.start(bank)[:, -1]
    scores = bank.scores[tuple(bank.locations.T)]
    torch.testing.assert_close(own.mean(), torch.tensor(1.0))
    torch.testing.assert_close(own.std(correction=0), torch.tensor(1.0))
    assert torch.equal(own.argsort(), scores.argsort(descending=True))


def test_a_member_learns_from_its_own_queries_and_the_mean_of_all_is_inserted(backbone, task, searched):
    config = with_method(replace(searched, policy=replace(searched.policy, members=2)), how="ensemble")
    bank = build_bank(scan(backbone, task, config), config)
    module = CandidateSearch(backbone, task, bank, Method.of(config).how, config)
    shares = module.how.shares(module, 4)
    assert shares.shape == (4, 1, 16, 4)
    module.mixed_rewards(task.support[:4], shares)[:2].sum().backward()
    first, second = module.logits.grad
    assert first.abs().sum() > 0 and second.abs().sum() == 0
    with torch.no_grad():
        module.logits[1] += torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module.how.decide(module), module.logits.softmax(-1).mean(0))


def test_debug_makes_an_ensemble_as_small_as_its_queries(searched):
    config = with_method(replace(searched, policy=replace(searched.policy, members=2), debug=True), how="ensemble")
    assert checked(checked(config)).policy.members == 1


def test_settings_that_mean_nothing_are_refused(searched):
    def check(config: Config, **policy: object) -> None:
        Method.of(replace(config, policy=replace(config.policy, **policy))).check()

    for key in ("prior", "sparsity", "threshold"):
        with pytest.raises(StvError, match=rf"policy\.{key} weighs .*set bank\.identity=true"):
            check(replace(searched, bank=BankConfig(False)), **{key: 0.5})
    with pytest.raises(StvError, match=r"method\.where=all does not go with .*a where that ranks"):
        check(with_method(searched, where="all"), prior=1.0)
    with pytest.raises(StvError, match=r"a where that ranks"):  # a function vector's candidates lie elsewhere
        check(with_method(searched, where="indirect_effect", what="function_vector"), prior=1.0)
    with pytest.raises(StvError, match=r"policy\.queries=4 cannot be divided among policy\.members=3"):
        check(with_method(searched, how="ensemble"), members=3)
