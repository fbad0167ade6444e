"""Every demonstration choice is seeded, never shows the query, and chooses what its name says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from stv_exp.config import Config, DemonstrationsConfig, ModelConfig, TrainerConfig
from stv_exp.data.demonstrations import CHOICES, DemonstrationSampler, facility_location
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError
from stv_exp.models.loading import load_backbone
from stv_exp.stages.features import demonstration_features, image_features, question_features
from stv_exp.stages.scan import make_pairs, scan
from tests.families import FAMILIES, VISION_FAMILIES


def with_choice(config: Config, choice: str) -> Config:
    return replace(config, demonstrations=DemonstrationsConfig(choice))


@pytest.fixture
def sampler_of(backbone, task, config):
    def make(choice: str, seed: int = 0, share: float = 1.0) -> DemonstrationSampler:
        features = demonstration_features(backbone, task, with_choice(config, choice), task.evaluation)
        return DemonstrationSampler(task, seed, choice, features, share)

    return make


def ids(sampler: DemonstrationSampler, query: Example, shots: int, purpose: str = "x") -> list[str]:
    return [d.id for d in sampler.draw(query, shots, purpose)]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_every_choice_shows_different_support_examples_other_than_the_query(sampler_of, task, choice, share):
    sampler = sampler_of(choice, share=share)
    support = {e.id for e in task.support}
    for query in (*task.support, *task.evaluation):
        for shots in (0, 1, 5, len(support) - 1):
            drawn = ids(sampler, query, shots)
            assert len(drawn) == len(set(drawn)) == shots and set(drawn) <= support - {query.id}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_depends_on_seed_and_query_not_on_the_order_of_calls(sampler_of, task, choice):
    a, b = sampler_of(choice, share=0.5), sampler_of(choice, share=0.5)
    forwards = [ids(a, query, 4) for query in task.evaluation]
    assert forwards == [ids(b, query, 4) for query in task.evaluation[::-1]][::-1]


def answered(counts: dict[str, int]) -> Task:
    support = tuple(Example(f"{a}{i}", (), "?", (a,)) for a, n in counts.items() for i in range(n))
    return Task("t", support, (Example("e", (), "?", ("a",)),))


@pytest.mark.parametrize("shots", [1, 2, 3, 4, 7, 9, 12])
def test_balanced_shows_every_answer_equally_often(shots):
    task = answered({"a": 40, "b": 5, "c": 8})
    sampler = DemonstrationSampler(task, 0, choice="balanced")
    for query in (*task.support, *task.evaluation):
        shown = Counter(d.answers[0] for d in sampler.draw(query, shots, "x"))
        assert max(shown.values()) - min(shown[a] for a in "abc") <= 1


def test_balanced_goes_on_with_the_answers_that_are_left():
    task = answered({"a": 20, "b": 2})
    shown = Counter(d.answers[0] for d in DemonstrationSampler(task, 0, choice="balanced").draw(task.support[0], 9, ""))
    assert shown == {"a": 7, "b": 2}


def test_balanced_favours_no_answer_and_no_order_where_answers_outnumber_the_shots():
    task = answered({"a": 40, "b": 5, "c": 8, "d": 1})
    sampler = DemonstrationSampler(task, 0, choice="balanced")
    first = Counter(sampler.draw(task.evaluation[0], 2, str(i))[0].answers[0] for i in range(2_000))
    assert all(420 < n < 580 for n in first.values()) and len(first) == 4


QUESTIONS = [
    "What colour is the dog?",
    "How many chairs are around the table?",
    "Is this milk still good?",
    "What is the expiry date of this milk carton?",
    "Who painted the picture on the wall?",
    "Quelle est la couleur du Zèbre ?",
]


def test_the_nearest_question_is_found_and_stands_next_to_the_query(backbone, config):
    support = tuple(Example(str(i), (), q, ("x",)) for i, q in enumerate(QUESTIONS))
    asked = ["what COLOUR is that big dog", "expiry date of the milk", "couleur, zèbre"]
    task = Task("t", support, tuple(Example(f"q{i}", (), q, ("x",)) for i, q in enumerate(asked)))
    features = demonstration_features(backbone, task, with_choice(config, "nearest_question"), task.evaluation)
    sampler = DemonstrationSampler(task, 0, choice="nearest_question", features=features)
    assert [ids(sampler, query, 3)[-1] for query in task.evaluation] == ["0", "3", "5"]
    assert ids(sampler, task.evaluation[1], 2) == ["2", "3"]


def test_equally_near_questions_are_drawn_alike(sampler_of, task):
    assert len({e.question for e in task.support}) == 1
    sampler = sampler_of("nearest_question")
    shown = Counter(i for n in range(300) for i in ids(sampler, task.evaluation[0], 2, str(n)))
    assert len(shown) == len(task.support) and max(shown.values()) < 60


def test_rare_words_count_more_than_common_ones():
    rows = question_features(["the a", "the b", "the c", "the c d", "the d zebra"], 4)
    assert rows[3] @ rows[4] > rows[2] @ rows[4]
    np.testing.assert_allclose((rows**2).sum(1), 1, rtol=1e-5)


def test_a_question_without_words_is_like_no_other():
    assert not question_features(["?!", "what"], 2)[0].any()


def noisy_copy(example: Example, seed: int) -> Example:
    pixels = np.asarray(example.images[0](), dtype=np.int16)
    changed = pixels + np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    image = Image.fromarray(changed.clip(0, 255).astype(np.uint8))
    return Example(f"copy of {example.id}", (image.copy,), example.question, example.answers)


def test_the_nearest_picture_is_found(backbone, task, config):
    copies = tuple(noisy_copy(example, i) for i, example in enumerate(task.support))
    task = replace(task, evaluation=copies)
    features = demonstration_features(backbone, task, with_choice(config, "nearest_image"), copies)
    sampler = DemonstrationSampler(task, 0, choice="nearest_image", features=features)
    assert [f"copy of {ids(sampler, query, 3)[-1]}" for query in copies] == [query.id for query in copies]


def test_picture_features_do_not_depend_on_the_batch_and_average_an_examples_pictures(backbone, task, config):
    two = Example("two", (task.support[0].images[0], task.support[1].images[0]), "?", ("x",))
    examples = (*task.support[:7], two)
    batches = [replace(config, trainer=TrainerConfig(batch_size=n)) for n in (2, 32)]
    rows, again = (image_features(backbone, examples, 2, batch) for batch in batches)
    np.testing.assert_allclose(rows, again, atol=1e-4)
    np.testing.assert_allclose(rows[7], 0, atol=1e-4)  # the mean of the two that are taken for the whole support


@pytest.mark.parametrize("family", [family for family in VISION_FAMILIES if family != "mllama"])  # it has none
def test_every_vision_family_has_picture_features(family, task, config, tmp_path):
    FAMILIES[family](tmp_path)
    model = load_backbone(ModelConfig(str(tmp_path)))
    larger = [Image.Image.resize(e.images[0](), (48 + 16 * (i % 2), 32)) for i, e in enumerate(task.support[:5])]
    examples = [Example(str(i), (image.copy,), "?", ("x",)) for i, image in enumerate(larger)]
    rows = image_features(model, examples, 5, replace(config, trainer=TrainerConfig(batch_size=3)))
    alone = image_features(model, examples, 5, replace(config, trainer=TrainerConfig(batch_size=1)))
    assert np.linalg.matrix_rank(rows) == 4  # five pictures, less their mean
    np.testing.assert_allclose(rows, alone, atol=1e-3)


def test_pictures_of_a_model_without_picture_features_are_refused(task, config, tmp_path):
    FAMILIES["llama"](tmp_path)
    model = load_backbone(ModelConfig(str(tmp_path)))
    with pytest.raises(StvError, match=r"demonstrations.choice=nearest_image .* has none \(no get_image_features\)"):
        demonstration_features(model, task, with_choice(config, "nearest_image"))


def test_the_nearest_picture_of_text_is_refused_by_example(backbone, config):
    task = answered({"a": 3})
    with pytest.raises(StvError, match="compares pictures, and example a0 has none"):
        demonstration_features(backbone, task, with_choice(config, "nearest_image"))


def test_a_query_without_features_is_refused(backbone, task, config):
    features = demonstration_features(backbone, task, with_choice(config, "nearest_question"))
    with pytest.raises(StvError, match=r"Example eval-0 .* has no features"):
        DemonstrationSampler(task, 0, choice="nearest_question", features=features).draw(task.evaluation[0], 2, "x")


def test_only_choices_that_compare_make_features(backbone, task, config):
    made = {choice: bool(demonstration_features(backbone, task, with_choice(config, choice))) for choice in CHOICES}
    assert made == {choice: choice not in ("random", "balanced") for choice in CHOICES}


def cosines(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def coverage(similarity: np.ndarray, chosen: list[int]) -> float:
    """The objective with similarities from 0, where greedy choice has its guarantee."""
    return (1 + similarity[:, chosen]).max(1).sum()


@pytest.mark.parametrize("seed", range(10))
def test_facility_location_is_the_greedy_choice_and_near_the_best(seed):
    similarity = cosines(11, seed)
    chosen = facility_location(similarity, 4, range(11))
    for n in range(4):
        greedy = max(coverage(similarity, [*chosen[:n], j]) for j in range(11))
        assert coverage(similarity, chosen[: n + 1]) == pytest.approx(greedy, abs=1e-4)
    best = max(coverage(similarity, list(four)) for four in combinations(range(11), 4))
    assert (1 - 1 / np.e) * best <= coverage(similarity, chosen) <= best + 1e-9


def test_facility_location_covers_more_than_random_choice():
    similarity = cosines(300, 0)
    chosen = coverage(similarity, facility_location(similarity, 8, range(300)))
    pick = np.random.default_rng(1)
    assert chosen > max(coverage(similarity, list(pick.choice(300, 8, replace=False))) for _ in range(200))


def test_facility_location_keeps_to_its_candidates():
    assert set(facility_location(cosines(30, 0), 5, range(0, 30, 3))) <= set(range(0, 30, 3))


def test_facility_location_takes_the_first_of_equals():
    pairs = np.array([[1, 0.9, 0, 0], [0.9, 1, 0, 0], [0, 0, 1, 0.7], [0, 0, 0.7, 1]])
    assert facility_location(pairs, 2, range(4)) == [0, 2]
    assert facility_location(np.ones((5, 5), dtype=np.float32), 3, [4, 2, 0, 1, 3]) == [0, 1, 2]


def test_facility_location_shows_all_eval_queries_one_set_and_a_query_in_it_the_next(sampler_of, task):
    sampler = sampler_of("facility_location")
    assert len({tuple(ids(sampler, query, 4)) for query in task.evaluation}) == 1
    order = ids(sampler, task.evaluation[0], 5)
    second = next(e for e in task.support if e.id == order[1])
    assert ids(sampler, second, 4) == [order[0], *order[2:5]]


def test_facility_location_refuses_a_support_too_large_to_compare():
    task = answered({"a": 20_001})
    with pytest.raises(StvError, match=r"20001 support examples; lower dataset.support to 20000"):
        DemonstrationSampler(task, 0, choice="facility_location").draw(task.evaluation[0], 2, "x")


@pytest.mark.parametrize("choice", CHOICES)
def test_the_scan_records_what_each_choice_shows(backbone, task, config, choice):
    config = with_choice(config, choice)
    result = scan(backbone, task, config)
    assert torch.isfinite(result.deltas).all() and result.deltas.abs().sum() > 0
    pairs = make_pairs(task, config, demonstration_features(backbone, task, config))
    assert result.demonstration_ids == [[d.id for d in prompt.demonstrations] for prompt, _ in pairs]
    assert len({tuple(drawn) for drawn in result.demonstration_ids}) > len(pairs) / 2
    for query, drawn in zip(result.query_ids, result.demonstration_ids, strict=True):
        assert query not in drawn and len(set(drawn)) == config.scan.shots


def test_a_prompt_cut_to_fewer_shots_is_the_prompt_made_of_them(task, config):
    template, query = config.dataset.template, task.evaluation[0]
    whole = make_prompt(template, query, task.support[:4])
    for shots in range(5):
        assert whole.first(shots) == make_prompt(template, query, task.support[:shots])
