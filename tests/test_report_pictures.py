"""The pictures of a report: what they show, where they have something to show, and that they can be read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from stv_exp.report.damage import DamagedError
from stv_exp.report.frame import runs as read
from stv_exp.report.gallery import PICTURES, gallery
from stv_exp.report.pictures.cost import accuracy_by_cost
from stv_exp.report.pictures.dots import ROWS, accuracy_dots
from stv_exp.report.pictures.k_and_m import accuracy_by_k, accuracy_maps, by_k_and_m
from stv_exp.report.pictures.rewards import reward_curves
from stv_exp.report.pictures.sensitivity import location_maps
from stv_exp.report.ranking import ranking
from tests.report_study import write_study

KS, MS = [4, 16, 8], [1, 16, 4]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_study(folder, KS, MS, [0, 1], ["shape"])
    return folder


@pytest.fixture(scope="module")
def runs(outputs):
    return read(outputs)


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_all_pictures_are_drawn_of_a_sweep_over_k_and_m(runs, outputs):
    figures, notes = gallery(runs, outputs)
    assert tuple(figures) == PICTURES and notes == []


def test_a_picture_without_anything_to_show_is_not_drawn(runs, outputs):
    prompted = runs[runs["method"] == "few_shot"].drop(columns=["seconds.scan", "seconds.policy"])
    assert tuple(gallery(prompted, outputs)[0]) == ("accuracy.png", "stages.png")
    assert accuracy_by_cost(prompted) is None


def test_the_map_over_k_and_m_has_the_mean_over_seeds_in_the_order_of_numbers(runs):
    (axes,) = accuracy_maps(by_k_and_m(runs)).axes
    assert ticks(axes.xaxis) == ["4", "8", "16"] and ticks(axes.yaxis) == ["1", "4", "16"]
    own = runs[(runs["method.k"] == 4) & (runs["method.m"] == 1)]
    assert len(own) == 2 and words(axes)[0] == f"{own['accuracy'].mean():.3f}"


def test_lines_over_k_are_told_apart_by_colour_and_by_marker(runs):
    figure = accuracy_by_k(by_k_and_m(runs))
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["1", "4", "16"]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 3
    assert list(lines[0].get_xdata()) == [4, 8, 16]


def test_settings_that_vary_beside_k_and_m_have_panels_of_their_own(runs):
    other = runs.assign(label=runs["label"] + " sensitivity=snr")
    figure = accuracy_by_k(by_k_and_m(pd.concat([runs, other])))
    assert [axes.get_title() for axes in figure.axes] == ["stv", "stv sensitivity=snr"]


def test_two_models_are_not_averaged_where_the_label_does_not_tell_them(runs):
    two = pd.concat([runs, runs.assign(**{"model.name": "other"})])
    assert set(by_k_and_m(two)["series"]) == {"stv, other", "stv, testbed"}


def test_what_costs_nothing_is_a_line_across(runs):
    axes = accuracy_by_cost(runs).axes[0]
    free = runs[runs["search_token_forwards"] == 0].groupby("label")["accuracy"].mean()
    assert sorted(line.get_ydata()[0] for line in axes.get_lines()) == pytest.approx(sorted(free))
    assert axes.get_xscale() == "log"


def test_searches_of_one_method_are_told_apart_beside_its_costs(runs):
    searched = [runs.assign(**{"method.how": how, "label": runs["label"] + f" how={how}"}) for how in ("a", "b")]
    legend = accuracy_by_cost(pd.concat(searched)).legends[0]
    assert {"stv a", "stv b"} <= {text.get_text().strip() for text in legend.get_texts()}


def test_many_runs_stay_readable(runs):
    many = pd.concat([runs.assign(label=runs["label"] + f" x={i}", task=f"task {i % 9}") for i in range(15)])
    figure = accuracy_dots(many)
    assert len(ticks(figure.axes[0].yaxis)) == ROWS, "the best ones"
    curves = {f"stv k={i}": [{"reward": [0.1, 0.2], "reward_random": [0.1, 0.1]}] * 3 for i in range(50)}
    for drawn in (figure, reward_curves(curves)):
        places = {round(axes.get_position().x0, 3) for axes in drawn.axes}
        assert len(places) <= 4 and drawn.get_figwidth() <= 10, "four panels a row"


def test_curves_have_a_band_over_tasks_and_seeds():
    curves = [{"reward": [0.0] * 3, "reward_random": [0.0] * 3}, {"reward": [2.0] * 4, "reward_random": [1.0] * 4}]
    figure = reward_curves({"stv": curves})
    policy = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (policy[:, 1].min(), policy[:, 1].max()) == pytest.approx((1 - 2**0.5, 1 + 2**0.5))


def test_rankings_of_one_shape_are_averaged_and_locations_marked_by_their_share():
    place = np.array([[0, 1]])
    figure = location_maps({"l2": [(np.zeros((2, 3)), place), (np.ones((2, 3)), np.array([[0, 1], [1, 2]]))]})
    axes = figure.axes[0]
    assert np.unique(axes.get_images()[0].get_array()).tolist() == [0.5]
    (squares,) = axes.collections
    assert squares.get_offsets().tolist() == [[1, 0], [2, 1]] and squares.get_edgecolors()[:, 3].tolist() == [1, 0.5]


def test_of_one_kind_of_ranking_there_is_a_map_for_each_task(tmp_path):
    write_study(tmp_path, [2], [1], [0, 1], ["easy", "hard"])
    runs = read(tmp_path).query("method == 'stv'")
    kinds = runs.assign(**{"method.sensitivity": ["l2" if seed else "snr" for seed in runs["seed"]]})
    shown = [[axes.get_title() for axes in _maps(own, tmp_path)] for own in (runs, kinds)]
    assert shown[0] == ["made/easy (mean of 2)", "made/hard (mean of 2)"]
    assert sorted(shown[1]) == ["l2, testbed, 4x8 (mean of 2)", "snr, testbed, 4x8 (mean of 2)"]


def _maps(runs: pd.DataFrame, outputs) -> list:
    return [axes for axes in gallery(runs, outputs)[0]["sensitivity.png"].axes if axes.get_xlabel() == "head"]


@pytest.mark.parametrize("changes", [{"scores": np.zeros((1, 2), np.float32)}, {"locations": np.array([[0], [1]])}])
def test_a_bank_with_locations_that_it_does_not_rank_is_damaged(tmp_path, changes):
    values = {"scores": np.zeros((2, 2), np.float32), "locations": np.array([[0, 1], [1, 0]])} | changes
    save_file(values, tmp_path / "artefact.safetensors", {"Bank": "{}"})
    with pytest.raises(DamagedError, match="locations that it does not rank"):
        ranking(tmp_path)


def test_pictures_and_page_need_no_torch():
    code = "import stv_exp.report.gallery, stv_exp.report.html.document, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
