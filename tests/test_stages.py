"""Scan, bank and policy do what their definitions say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stv_exp.artefacts.scan import Scan
from stv_exp.config import BankConfig, InsertionConfig
from stv_exp.errors import StvError
from stv_exp.methods import categorical
from stv_exp.methods.how.bernoulli import Bernoulli
from stv_exp.methods.how.reinforce import leave_one_out, standardised
from stv_exp.methods.method import Method
from stv_exp.methods.what.clusters import cluster
from stv_exp.methods.where.sensitivity import SENSITIVITIES, Sensitivity
from stv_exp.models.backbone import Backbone
from stv_exp.models.edits import Edit
from stv_exp.stages.bank import build_bank
from stv_exp.stages.evaluate import evaluate
from stv_exp.stages.scan import make_pairs, scan
from stv_exp.stages.search import choose, insertion
from tests.conftest import with_method

MTV = {"where": "all", "what": "mean", "how": "bernoulli"}
GRADIENT = ("gumbel_softmax", "mixture")
SEARCHES = [MTV, *({"how": how} for how in ("reinforce", *GRADIENT, "cross_entropy", "greedy", "best_of"))]


@pytest.fixture(scope="module")
def scanned() -> Scan:
    """Random activations: 30 queries, 2 layers of 4 heads of 3."""
    pick = torch.Generator().manual_seed(0)
    a, b = (torch.randn(30, 2, 4, 3, generator=pick) for _ in range(2))
    return Scan(a + torch.arange(8.0).view(2, 4, 1), b, [], [])


def test_sensitivities_are_their_definitions(scanned):
    for layer in range(2):
        for head in range(4):
            a, b = scanned.with_demonstrations[:, layer, head], scanned.alone[:, layer, head]
            delta = a - b
            mean = delta.mean(0)
            spread = torch.stack([(d - mean).norm() ** 2 for d in delta]).mean().sqrt()
            cosines = torch.stack([x @ y / (x.norm() * y.norm()) for x, y in zip(a, b, strict=True)])
            expected = {
                "l2": torch.stack([d.norm() for d in delta]).mean(),
                "mean_delta": mean.norm(),
                "snr": mean.norm() / spread,
                "cosine": 1 - cosines.mean(),
            }
            assert set(expected) == set(SENSITIVITIES)
            for kind, value in expected.items():
                torch.testing.assert_close(SENSITIVITIES[kind](scanned)[layer, head], value, atol=1e-5, rtol=1e-4)


def test_top_locations_are_the_most_sensitive_heads_in_order(scanned, config):
    sensitivity = SENSITIVITIES["mean_delta"](scanned)
    locations = Sensitivity(with_method(config, k=3, sensitivity="mean_delta")).locations(scanned)
    values = sensitivity[locations[:, 0], locations[:, 1]]
    assert values.tolist() == sorted(sensitivity.flatten().tolist(), reverse=True)[:3]


def test_the_scan_compares_the_same_queries_with_and_without_demonstrations(backbone, task, config):
    result = scan(backbone, task, config)
    assert result.with_demonstrations.shape == result.alone.shape == (12, 2, 8, 8)
    assert len(set(result.query_ids)) == 12
    for query, demonstrations in zip(result.query_ids, result.demonstration_ids, strict=True):
        assert query not in demonstrations and len(demonstrations) == 2
    prompts = [pair[1] for pair in make_pairs(task, config)]
    torch.testing.assert_close(result.alone, backbone.capture(backbone.encode(prompts)), atol=1e-5, rtol=1e-4)


def test_the_scan_does_not_depend_on_the_batch_size(backbone, task, config):
    small = replace(config, trainer=replace(config.trainer, batch_size=5))
    a, b = scan(backbone, task, config), scan(backbone, task, small)
    torch.testing.assert_close(a.with_demonstrations, b.with_demonstrations, atol=1e-5, rtol=1e-4)


def test_nan_in_activations_is_refused(task, config):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from stv_exp.models.sources import model_folder

    folder = model_folder("tiny")
    broken = AutoModelForImageTextToText.from_pretrained(folder)
    broken.model.text_model.layers[0].self_attn.v_proj.weight.data.fill_(float("nan"))
    backbone = Backbone(broken, AutoProcessor.from_pretrained(folder), "broken")
    with pytest.raises(StvError, match=r"broken on shapes/.* contain NaN"):
        scan(backbone, task, config)


def test_one_cluster_is_the_mean(scanned, config):
    clusters = build_bank(scanned, with_method(config, m=1))
    mean = build_bank(scanned, with_method(config, what="mean"))
    torch.testing.assert_close(clusters.centroids, mean.centroids, atol=1e-5, rtol=1e-5)
    assert (clusters.sizes == 30).all()


def test_centroids_are_the_means_of_what_is_nearest_to_them():
    pick = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    labels = torch.arange(60) % 3
    activations = centres[labels] + 0.1 * torch.randn(60, 2, generator=pick)
    centroids, sizes = cluster(activations[None], 3, seed=0)
    assert sizes.tolist() == [[20, 20, 20]]
    expected = torch.stack([activations[labels == i].mean(0) for i in range(3)])
    order = torch.cdist(expected, centroids[0]).argmin(1)
    torch.testing.assert_close(centroids[0][order], expected, atol=1e-4, rtol=1e-4)


def test_more_clusters_than_activations_is_refused(config):
    with pytest.raises(StvError, match=r"method\.m=13 candidates cannot be made of scan\.pairs=12 activations"):
        Method.of(with_method(config, m=13)).check()


@pytest.mark.parametrize("k", [0, 9])
def test_k_outside_the_head_count_is_refused(scanned, config, k):
    with pytest.raises(StvError, match=f"method.k={k} is not within the 8 heads"):
        build_bank(scanned, with_method(config, k=k))


def test_random_locations_are_k_different_heads_drawn_by_seed(scanned, config):
    first = build_bank(scanned, with_method(config, where="random")).locations
    again = build_bank(scanned, with_method(config, where="random")).locations
    other = build_bank(scanned, replace(with_method(config, where="random"), seed=1)).locations
    assert len({tuple(x) for x in first.tolist()}) == 5
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_add_mode_clusters_what_the_demonstrations_change(scanned, config):
    config = replace(with_method(config, what="mean"), insertion=InsertionConfig(mode="add"))
    bank = build_bank(scanned, config)
    layer, head = bank.locations[0].tolist()
    torch.testing.assert_close(bank.centroids[0, 0], scanned.deltas[:, layer, head].mean(0))


def test_choices_follow_their_categoricals(scanned, config):
    bank = build_bank(scanned, config)
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    choices = categorical.sample(logits, 2, 3000, torch.Generator().manual_seed(0))
    assert choices.shape == (2, 3000, 5)
    frequency = torch.nn.functional.one_hot(choices.flatten(0, 1), 4).float().mean(0)
    torch.testing.assert_close(frequency, logits.softmax(-1), atol=0.03, rtol=0)
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(categorical.log_prob(logits, choices), expected.log_prob(choices).sum(-1))
    torch.testing.assert_close(categorical.entropy(logits), expected.entropy().mean())
    written = insertion(bank, choices, Edit())
    assert torch.equal(written.keep == 1, choices == 3), "choice M leaves a location alone"
    q, s, k = (choices != 3).nonzero()[7].tolist()
    assert torch.equal(written.values[q, s, k], bank.centroids[k, choices[q, s, k]])
    assert (written.values[choices == 3] == 0).all()


def test_masks_start_at_mtvs_probability_and_never_become_certain(scanned, config):
    config = with_method(config, **MTV)
    how, bank = Bernoulli(config), build_bank(scanned, config)
    assert len(bank.locations) == 8
    inserted = how.sample(how.start(bank), 4, 2000, torch.Generator().manual_seed(0)) == 0
    assert abs(inserted.float().mean() - torch.tensor(-1.0).sigmoid()) < 0.02
    everything = torch.zeros(1, 1, 8, dtype=torch.long)
    torch.testing.assert_close(how.log_prob(torch.full((8,), 100.0), everything)[0, 0].exp(), torch.tensor(0.999**8))


def test_advantages_have_mean_0_and_deviation_1_within_a_query():
    advantage = standardised(torch.randn(3, 50) * 4 + 7)
    torch.testing.assert_close(advantage.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(advantage.std(1), torch.ones(3), atol=1e-4, rtol=0)
    assert (standardised(torch.full((1, 4), 2.0)) == 0).all()


def test_leave_one_out_compares_each_sample_with_the_others():
    rewards = torch.randn(2, 4)
    others = torch.stack([rewards[:, [j for j in range(4) if j != i]].mean(1) for i in range(4)], 1)
    torch.testing.assert_close(leave_one_out(rewards), rewards - others)


@pytest.mark.parametrize("method", SEARCHES, ids=lambda m: m["how"])
def test_the_same_seed_gives_the_same_vector_bit_for_bit(backbone, task, config, method):
    config = with_method(config, **method)
    bank = build_bank(scan(backbone, task, config), config)
    a, b = (choose(backbone, task, bank, config) for _ in range(2))
    other = choose(backbone, task, bank, replace(config, seed=1))
    assert torch.equal(a.vectors, b.vectors) and torch.equal(a.choices, b.choices) and a.history == b.history
    assert a.history != other.history


@pytest.mark.parametrize("method", [{}, {"where": "random"}, MTV], ids=["stv", "random_locations", "mtv"])
def test_every_search_has_the_same_budget_of_candidate_evaluations(backbone, task, config, method):
    config = with_method(config, **method)
    bank = build_bank(scan(backbone, task, config), config)
    budget = config.policy.steps * config.policy.queries * config.policy.samples
    assert budget - 8 < choose(backbone, task, bank, config).candidate_evaluations <= budget


@pytest.mark.parametrize("method", SEARCHES, ids=lambda m: m["how"])
def test_every_search_stays_within_a_budget_of_token_forwards(backbone, task, config, method):
    """Answers are one token here; a gradient's evaluation costs three."""
    config = replace(with_method(config, **method), policy=replace(config.policy, budget=150))
    chosen = choose(backbone, task, build_bank(scan(backbone, task, config), config), config)
    each = 3 if method["how"] in GRADIENT else 1
    assert 150 - 12 * each < chosen.candidate_evaluations * each <= 150


def test_the_policy_climbs_the_reward(backbone, task, config):
    """On random weights the reward still differs between candidates, so that a search can gain on chance."""
    longer = replace(config, policy=replace(config.policy, steps=60, samples=16, lr=0.3))
    bank = build_bank(scan(backbone, task, longer), longer)
    history = choose(backbone, task, bank, longer).history
    assert len(history["reward"]) == 60
    gain = [a - b for a, b in zip(history["reward"], history["reward_random"], strict=True)]
    assert sum(gain[-20:]) / 20 > max(0.0, sum(gain[:5]) / 5)
    assert history["entropy"][-1] < history["entropy"][0]


def test_identity_lets_a_search_leave_heads_alone(backbone, task, config):
    config = replace(config, bank=BankConfig(identity=True))
    bank = build_bank(scan(backbone, task, config), config)
    nothing = insertion(bank, torch.full((1, 1, 5), 3), Edit())
    assert (nothing.keep == 1).all() and (nothing.values == 0).all()
    chosen = choose(backbone, task, bank, config)
    assert len(chosen.locations) == int(chosen.active.sum()) <= 5


def test_too_small_a_budget_for_the_final_selection_is_refused(backbone, task, config):
    config = with_method(config, **MTV)
    bank = build_bank(scan(backbone, task, config), config)
    with pytest.raises(StvError, match=r"raise policy\.steps"):
        choose(backbone, task, bank, replace(config, policy=replace(config.policy, steps=1)))


def test_evaluation_keeps_demonstrations_out_of_the_eval_split(backbone, task, config):
    predictions = evaluate(backbone, task, None, with_method(config, where="none", shots=2))
    assert [p.id for p in predictions] == [e.id for e in task.evaluation]
    support = {e.id for e in task.support}
    assert all(set(p.demonstration_ids) <= support and len(p.demonstration_ids) == 2 for p in predictions)


def test_clusters_are_made_of_all_activations_however_many():
    """FAISS would take 256 a centroid at most, and say nothing."""
    activations = torch.randn(1, 1000, 8, generator=torch.Generator().manual_seed(0)) + 5
    centroids, sizes = cluster(activations, 1, seed=0)
    torch.testing.assert_close(centroids[:, 0], activations.mean(1), atol=1e-5, rtol=0)
    assert sizes.tolist() == [[1000]]
