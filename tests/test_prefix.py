"""Tree scoring on shared prefixes gives what a full forward gives, for every kind of insertion."""

from __future__ import annotations

import pytest
import torch

from stv_exp.data.prompts import make_prompt
from stv_exp.models.edits import Edit, Insertion, inserted
from stv_exp.models.prefix import PrefixCache, prefill
from stv_exp.models.scoring import tree as score

S, K = 7, 6


@pytest.fixture
def prompts(task, config):
    """Queries of different prefix lengths; the search itself uses prompts without demonstrations."""
    return [make_prompt(config.dataset.template, task.support[9 + i], task.support[:i]) for i in (0, 2, 1)]


@pytest.fixture
def answers(backbone):
    """Answers of one, three and two tokens."""
    ids = backbone.tokenizer.convert_tokens_to_ids
    return [torch.tensor(ids(words)) for words in (["mo"], ["red", "ta", "\n"], ["circle", "\n"])]


def insertion(backbone, queries: int, mode: str = "replace", partial: bool = False) -> Insertion:
    pick = torch.Generator().manual_seed(3)
    heads = backbone.heads
    locations = heads.all_locations()[torch.randperm(len(heads), generator=pick)[:K]]
    vectors = torch.randn(queries, S, K, heads.dim, generator=pick)
    active = torch.rand(queries, S, K, generator=pick) < 0.5 if partial else None
    return Edit(mode).insertion(locations, vectors, active)


@torch.inference_mode()
def full_forward(backbone, prompt, answer, one: Insertion, when: str) -> torch.Tensor:
    """Log-likelihood of each answer token by one forward of prompt and answer, batch of 1: `[N]`."""
    batch = backbone.encode([prompt])
    length = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], answer[None, :-1]], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    last = length - 1 + torch.arange(len(answer) if when == "every_step" else 1)[None]
    with inserted(backbone.heads, one, lambda: last):
        logits = backbone.model(**batch, position_ids=backbone.family.positions(batch)).logits
    predicted = logits[0, length - 1 :].log_softmax(-1)
    return predicted[torch.arange(len(answer)), answer]


@pytest.mark.parametrize("when", ["every_step", "prompt"])
@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("chosen", [[0], [1], [0, 1, 2]], ids=["one token", "three tokens", "three queries"])
def test_a_tree_scores_like_full_forwards(backbone, prompts, answers, when, mode, partial, chosen):
    prompts, answers = [prompts[i] for i in chosen], [answers[i] for i in chosen]
    many = insertion(backbone, len(chosen), mode, partial)
    tree = score(backbone, prefill(backbone, prompts), answers, many, when)
    assert tree.shape == (len(chosen), S, max(map(len, answers)))
    for q, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        for s in range(S):
            one = many.map(lambda t, q=q, s=s: t[q, s])
            expected = full_forward(backbone, prompt, answer, one, when)
            torch.testing.assert_close(tree[q, s, : len(answer)], expected, atol=1e-5, rtol=1e-5)
            assert (tree[q, s, len(answer) :] == 0).all()


def test_one_set_of_candidates_may_serve_all_queries(backbone, prompts, answers):
    shared = insertion(backbone, 1)
    prefixes = prefill(backbone, prompts)
    together = score(backbone, prefixes, answers, shared, "every_step")
    for q in range(3):
        alone = score(backbone, prefixes[q : q + 1], answers[q : q + 1], shared, "every_step")
        torch.testing.assert_close(together[q, :, : len(answers[q])], alone[0], atol=1e-5, rtol=1e-5)


def test_the_result_does_not_depend_on_the_cache_bound(backbone, prompts, answers):
    many = insertion(backbone, 3)
    room_for_one = prefill(backbone, prompts)[0].n_bytes + 1
    roomy, tight = PrefixCache(backbone, 10**9), PrefixCache(backbone, room_for_one)
    for _ in range(2):
        a = score(backbone, roomy.get(prompts), answers, many, "every_step")
        b = score(backbone, tight.get(prompts), answers, many, "every_step")
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    assert roomy.prefilled == 3, "each prefix is computed once"
    assert tight.prefilled > 3, "what was evicted is computed again"
    assert tight.kept.currsize <= room_for_one


def test_warming_computes_each_prefix_once_and_stays_within_the_bound(backbone, prompts):
    roomy = PrefixCache(backbone, 10**9)
    roomy.warm(prompts, batch_size=2)
    forwards = backbone.forwards
    roomy.get(prompts)
    assert roomy.prefilled == 3 and backbone.forwards == forwards
    tight = PrefixCache(backbone, 1)
    assert not tight.warm(prompts, batch_size=2)
    assert not tight.kept and tight.prefilled == 2, "what would be dropped again is not computed"


def test_scoring_leaves_the_kept_prefix_as_it_was(backbone, prompts, answers):
    prefixes = prefill(backbone, prompts[:1])
    before = [layer["keys"].clone() for layer in prefixes[0].layers]
    score(backbone, prefixes, answers[:1], insertion(backbone, 1), "every_step")
    assert all(torch.equal(a, layer["keys"]) for a, layer in zip(before, prefixes[0].layers, strict=True))
