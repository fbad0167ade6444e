"""A method is three choices, each a class that declares everything about itself; one from outside is no different."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from stv_exp import TaskVector
from stv_exp.config import BankConfig, InsertionConfig
from stv_exp.data.prompts import make_prompt
from stv_exp.data.task import Task
from stv_exp.diagnostics import discretisation_gap
from stv_exp.disk.store import Store
from stv_exp.errors import StvError
from stv_exp.identity import origin, signatures
from stv_exp.methods import How, Trained, What, Where
from stv_exp.methods.method import Method
from stv_exp.methods.registry import KINDS, choices
from stv_exp.models.edits import Edit, Insertion
from stv_exp.pipeline import run
from stv_exp.stages.bank import build_bank
from stv_exp.stages.scan import scan
from stv_exp.stages.search import CandidateSearch, choose, insertion, mixture, search
from stv_exp.stages.vector import as_vector
from tests import forked
from tests.conftest import llama, with_method
from tests.forked import Ended

SOURCE = Path(__file__).parents[1] / "src/stv_exp"
SITES = ("head", "attention", "mlp", "residual")
OWN = '''
from stv_exp.methods import How, Trained, What, Where


class LastLayers(Where):
    """The last `method.k` locations of the model."""

    reads = ("method.k",)

    def locations(self, scan):
        import torch

        everywhere = torch.cartesian_prod(*map(torch.arange, scan.grid)).reshape(-1, len(scan.grid))
        return everywhere[-self.config.method.k :]


class Extremes(What):
    """The smallest and the largest activation by norm."""

    def candidates(self, activations):
        order = activations.norm(dim=-1).argsort(1)[:, [0, -1]]
        found = activations.gather(1, order[..., None].expand(-1, -1, activations.shape[-1]))
        return found, order * 0 + 1


class Largest(How):
    """The candidate of the largest norm."""

    def choose(self, bank):
        return bank.centroids.norm(dim=-1).argmax(1)
'''
SEARCH = """
from stv_exp.methods.search import Search


class Told(Search):
    '''The first candidate, and curves of its own.'''

    def start(self, bank):
        return bank.centroids.new_zeros(bank.centroids.shape[:2])

    def step(self, problem, queries):
        problem.record(reward=1.0, **({"late": 2.0} if problem.step and self.config.policy.queries == 3 else {}))
"""
BROKEN = """
import torch
from stv_exp.methods import How, Trained, What, Where


class Raises(Where):
    def locations(self, scan):
        return scan.grid / 0


class Flat(Where):
    def locations(self, scan):
        return torch.arange(3)


class Outside(Where):
    def locations(self, scan):
        return torch.tensor([[0, 0], [99, 0]])


class Short(What):
    def candidates(self, activations):
        return activations[:, :2, :3], torch.ones(len(activations), 2)


class Nan(What):
    def candidates(self, activations):
        return activations[:, :1] * float("nan"), torch.ones(len(activations), 1)


class Many(How):
    def choose(self, bank):
        return torch.full((len(bank.locations),), 99)


class NoChoice:
    pass
"""


def test_a_search_from_outside_may_record_what_it_likes_in_every_step(tmp_path):
    """A loss alone, or a reward without that of random candidates."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my_search.py").write_text(SEARCH)
    job = ["--config-dir", "mine", "+experiment=smoke", "method.how=my_search.Told", "tracker=none"]
    done = stv_exp(tmp_path / "mine", *job)
    assert done.returncode == 0, done.text
    (curve,) = tmp_path.glob("outputs/runs/*/history.csv")
    assert curve.read_text().splitlines()[:2] == ["reward", "1.0"]
    refused = stv_exp(tmp_path / "mine", *job, "policy.queries=3")
    assert refused.returncode == 1 and "records late, reward in step 1 and recorded reward before" in refused.stderr


@pytest.fixture
def own(tmp_path) -> Path:
    """A user's folder: choices beside a method's YAML."""
    folder = tmp_path / "mine"
    (folder / "method").mkdir(parents=True)
    (folder / "my_choices.py").write_text(OWN)
    (folder / "broken.py").write_text(BROKEN)
    (folder / "method/mine.yaml").write_text(
        "name: mine\nwhere: my_choices.LastLayers\nwhat: my_choices.Extremes\nhow: my_choices.Largest\nk: 3\n"
    )
    return folder


def stv_exp(folder: Path, *arguments: str, module: str = "stv_exp") -> Ended:
    return forked.run(folder.parent, *arguments, module=module)


def test_choices_from_outside_run_with_signature_check_and_report(own):
    """Each of at most 25 lines; no file of the package is touched."""
    assert all(len(ast.unparse(c).splitlines()) <= 25 for c in ast.parse(OWN).body if isinstance(c, ast.ClassDef))
    job = ["--config-dir", "mine", "+experiment=smoke", "method=mine", "method.k=3", "tracker=none"]
    done = stv_exp(own, *job)
    assert done.returncode == 0, done.stderr
    (folder,) = (own.parent / "outputs/runs").glob("[!.]*")
    assert TaskVector.load(folder / "task_vector.safetensors").locations.tolist() == [[1, 5], [1, 6], [1, 7]]
    assert json.loads((folder / "manifest.json").read_text())["settings"]["method"]["where"] == "my_choices.LastLayers"
    assert "is done; its results are in" in stv_exp(own, *job).stdout
    (own / "my_choices.py").write_text(OWN.replace("[0, -1]", "[0, 1]"))
    assert "is done" not in stv_exp(own, *job).stdout, "other code is another run"
    assert re.search(r"│ mine ", stv_exp(own, module="stv_exp.report").stdout)
    refused = stv_exp(own, *job, "method.m=3")
    assert refused.returncode == 1 and "Error: method.m is not read by method=mine" in refused.stderr


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.where=broken.Raises", "method.where=broken.Raises failed (TypeError: unsupported operand"),
        (
            "method.where=broken.Flat",
            "method.where=broken.Flat returns torch.int64 [3] instead of whole numbers [K, 2]",
        ),
        ("method.where=broken.Outside", "method.where=broken.Outside returns locations twice or outside"),
        ("method.what=broken.Short", "method.what=broken.Short returns torch.float32 [3, 2, 3] instead of candidates"),
        ("method.what=broken.Nan", "method.what=broken.Nan returns NaN or infinite candidates"),
        ("method.how=broken.Many", "method.how=broken.Many returns a choice beyond the 2 candidates"),
        ("method.how=broken.Absent", "method.how=broken.Absent cannot be imported (AttributeError"),
        ("method.how=nowhere.Choice", "method.how=nowhere.Choice cannot be imported (ModuleNotFoundError"),
        ("method.how=broken.NoChoice", "method.how=broken.NoChoice is no How; derive it from"),
        ("method.how=broken.Flat", "method.how=broken.Flat is no How"),
    ],
)
def test_a_choice_that_breaks_its_word_is_named(own, config, monkeypatch, override, sentence):
    monkeypatch.syspath_prepend(own)
    monkeypatch.setitem(sys.modules, "broken", None)
    del sys.modules["broken"]
    key, _, value = override.partition("=")
    mine = {"where": "my_choices.LastLayers", "what": "my_choices.Extremes", "how": "my_choices.Largest", "k": 3}
    with pytest.raises(StvError, match=re.escape(sentence)):
        run(with_method(config, **mine | {key.removeprefix("method."): value}), [])


def test_an_unknown_choice_is_refused_with_near_names(config):
    with pytest.raises(StvError, match=r"method.how=reinforc is unknown; did you mean reinforce\? Else choose one of"):
        Method.of(with_method(config, how="reinforc"))


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"where": "none"}, "method.where=none does not go with what=clusters, how=reinforce; use what=none and how"),
        ({"what": "none"}, "method.where=sensitivity does not go with what=none, how=reinforce; use what=activations"),
        ({"how": "bernoulli"}, "does not go with what=clusters, how=bernoulli; use a what with one candidate"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(config, method, sentence):
    with pytest.raises(StvError, match=re.escape(sentence)):
        Method.of(with_method(config, **method)).check()


@pytest.mark.parametrize(
    ("method", "key"),
    [("few_shot", "method.k"), ("zero_shot", "policy.steps"), ("mean", "method.m"), ("mtv", "bank.identity")],
)
def test_a_setting_that_a_method_does_not_read_is_refused(tmp_path, method, key):
    value = "true" if key == "bank.identity" else "3"
    done = stv_exp(tmp_path / "x", "tracker=none", f"method={method}", f"{key}={value}")
    assert done.returncode == 1 and f"Error: {key} is not read by method={method}" in done.stderr
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_sweep_refuses_what_none_of_its_methods_reads_and_shares_the_rest(own):
    small = ["+experiment=smoke", "tracker=none", "dataset.eval=2"]
    refused = stv_exp(own, "-m", *small, "method=few_shot,zero_shot", "method.k=3,4")
    assert refused.returncode == 1 and "Error: method.k is not read by method=few_shot,zero_shot" in refused.stderr
    assert not list(own.parent.rglob("status.json")), "before the first job"
    assert stv_exp(own, "-m", *small, "method=stv,zero_shot", "method.k=3,4").returncode == 0


def test_no_file_outside_the_wing_names_a_choice():
    """`none` and `random` are words of other settings too; the rest are the choices' own."""
    names = {name for kind in KINDS for name in choices(kind)} - {"none", "random", "all", "mean", "activations"}
    strings = re.compile(rf"""["']({"|".join(names)})["']""")
    named = {}
    for path in SOURCE.rglob("*.py"):
        if "methods" not in path.parts and (found := strings.findall(path.read_text())):
            named[path.name] = found
    assert named == {}


def test_every_choice_says_what_it_is_in_a_line():
    for kind, base in KINDS.items():
        for name, choice in choices(kind).items():
            assert issubclass(choice, base) and choice.name == name
            assert choice.__doc__ and len(choice.__doc__.split("\n")[0]) > 10


def test_declarations_come_without_torch():
    code = (
        "import sys; from stv_exp.methods.registry import *; [choices(k) for k in KINDS]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_signatures_follow_from_what_is_read(config):
    def changed(section: str, method: dict[str, object], **values: object) -> list[str]:
        one = with_method(config, **method)
        a, b = signatures(one), signatures(replace(one, **{section: replace(getattr(one, section), **values)}))
        return [stage for stage in ("scan", "bank", "policy", "run") if getattr(a, stage) != getattr(b, stage)]

    assert changed("policy", {}, cache_bytes=1) == []
    assert changed("policy", {}, lr=0.2) == ["policy", "run"]
    assert changed("policy", {}, temperature=2.0) == []
    assert changed("policy", {"how": "gumbel_softmax"}, temperature=2.0) == ["policy", "run"]
    assert changed("policy", {"how": "none"}, lr=0.2) == []
    assert changed("method", {}, k=4) == ["bank", "policy", "run"]
    assert changed("method", {"where": "all"}, k=4) == []
    assert changed("method", {}, site="mlp") == ["scan", "bank", "policy", "run"]
    assert changed("insertion", {}, weight=0.5) == ["policy", "run"]


def test_what_is_taught_to_a_chat_says_how_it_was_taught_to_end(config):
    chat = replace(config, model=replace(config.model, chat=True))
    prompted = with_method(chat, where="none", what="none", how="none", shots=2)
    assert ["ends" in origin(own)["code"] for own in (config, chat, prompted)] == [False, True, False]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("how", ["reinforce", "gumbel_softmax", "mixture"])
def test_a_method_runs_at_every_site(config, site, how):
    """From the scan to a vector that carries its site, in a plain transformers model too."""
    metrics = run(with_method(config, site=site, how=how, k=2), [])
    (path,) = Path(config.outputs).glob("runs/*/task_vector.safetensors")
    vector = TaskVector.load(path)
    assert (vector.site, vector.when) == (site, "every_step")
    assert vector.locations.shape == (2, 2 if site == "head" else 1) and vector.vectors.shape[1] == (
        8 if site == "head" else 64
    )
    assert metrics["scoring"] == "tree" and metrics["token_forwards"]["policy"] > metrics["candidate_evaluations"]
    with pytest.raises(StvError, match=r"made for .*n_layers 2"), vector.inserted(llama()):
        pass


@pytest.mark.parametrize("site", SITES)
def test_k_counts_the_locations_of_the_site(config, site):
    total = 16 if site == "head" else 2
    with pytest.raises(StvError, match=f"method.k={total + 1} is not within the {total} "):
        run(with_method(config, site=site, k=total + 1), [])


@pytest.mark.parametrize("what", ["mean", "clusters", "activations"])
@pytest.mark.parametrize(
    ("how", "straight_through"),
    [("gumbel_softmax", True), ("gumbel_softmax", False), ("mixture", True), ("ensemble", True)],
)
def test_a_gradient_search_climbs_and_its_curves_are_kept(backbone, task, config, what, how, straight_through):
    policy = replace(config.policy, steps=40, queries=4, lr=0.3, straight_through=straight_through)
    config = replace(with_method(config, what=what, where="all", how=how), policy=policy)
    config = replace(config, bank=BankConfig(identity=True))
    chosen = choose(backbone, task, build_bank(scan(backbone, task, config), config), config)
    history = chosen.history
    assert set(history) == {"loss", "reward", "reward_random", "entropy"} and len(history["loss"]) == 40
    assert sum(history["loss"][-8:]) < sum(history["loss"][:8])
    assert history["entropy"][-1] < history["entropy"][0]
    assert chosen.candidate_evaluations == 160


@pytest.mark.parametrize("mode", ["replace", "add", "blend"])
def test_one_hot_shares_are_choices(backbone, task, config, mode):
    """The straight-through forward inserts exactly what the argmax would."""
    config = replace(config, insertion=InsertionConfig(mode=mode), bank=BankConfig(identity=True))
    bank, edit = build_bank(scan(backbone, task, config), config), Edit(mode, 0.4)
    choices = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    one = mixture(bank, torch.nn.functional.one_hot(choices, 4).float(), edit)
    other = insertion(bank, choices, edit)
    torch.testing.assert_close(one.values, other.values)
    torch.testing.assert_close(one.keep, other.keep.expand_as(one.keep))


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize(("mode", "weight"), [("replace", 1.0), ("add", 0.7), ("blend", 0.4)])
def test_a_mixture_is_inserted_as_it_was_scored(backbone, task, config, mode, weight, identity):
    """The task vector gives each answer the likelihood that the search gave the shares that it ended with."""
    config = replace(config, insertion=InsertionConfig(mode=mode, weight=weight), bank=BankConfig(identity=identity))
    config = replace(with_method(config, how="mixture"), policy=replace(config.policy, lr=0.5))
    bank = build_bank(scan(backbone, task, config), config)
    module = CandidateSearch(backbone, task, bank, Method.of(config).how, config)
    chosen = search(module)
    vector = as_vector(backbone, bank, chosen, config)
    assert vector.mode == ("blend" if mode == "replace" else mode) and (chosen.weights < 1).all() == identity
    assert discretisation_gap(chosen) is None
    queries = task.support[:3]
    with torch.no_grad():
        scored = module.mixed_rewards(queries, module.logits.softmax(-1)[None, None])[:, 0]
    for query, reward in zip(queries, scored, strict=True):
        prompt = make_prompt(config.dataset.template, query)
        (answer,) = backbone.encode_answer(prompt)[:1]
        with vector.inserted(backbone.model), torch.no_grad():
            logits = backbone.model(**backbone.encode([prompt])).logits[0, -1].float()
        torch.testing.assert_close(logits.log_softmax(-1)[answer], reward, rtol=0, atol=1e-4)


def test_a_location_that_a_mixture_leaves_alone_is_none_of_the_vectors(backbone, task, config):
    config = replace(with_method(config, how="mixture"), bank=BankConfig(identity=True))
    bank = build_bank(scan(backbone, task, config), config)
    k, m = bank.centroids.shape[:2]
    shares = torch.full((k, m + 1), 1 / (m + 1))
    shares[1] = torch.eye(m + 1)[m]
    how = Method.of(config).how
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(how), "decide", lambda self, problem: shares)
        chosen = choose(backbone, task, bank, config)
        assert chosen.active.tolist() == [i != 1 for i in range(k)] and len(chosen.vectors) == k - 1
        torch.testing.assert_close(chosen.vectors[0], bank.centroids[0].mean(0))
        shares[0] += 0.1
        with pytest.raises(StvError, match=r"method\.how=mixture returns shares that do not sum to 1"):
            choose(backbone, task, bank, config)


def test_the_slope_of_the_shares_is_that_of_finite_differences(backbone, task, config):
    config = replace(config, bank=BankConfig(identity=True))
    bank = build_bank(scan(backbone, task, config), config)
    method = Method.of(config)
    module = CandidateSearch(backbone, task, bank, method.how, config)
    shares = torch.full((1, 1, 5, 4), 0.25, requires_grad=True)
    queries = task.support[:2]
    module.mixed_rewards(queries, shares).sum().backward()
    for k, c in ((0, 0), (2, 1), (4, 3)):
        step = torch.zeros_like(shares)
        step[0, 0, k, c] = 1e-2
        with torch.no_grad():
            up, down = (module.mixed_rewards(queries, shares + sign * step).sum() for sign in (1, -1))
        torch.testing.assert_close(shares.grad[0, 0, k, c], (up - down) / 2e-2, atol=2e-3, rtol=2e-2)


def test_the_graph_of_a_gradient_holds_branches_alone(backbone, task, config):
    """Prefixes are kept without a graph, and their forwards are counted once."""
    bank = build_bank(scan(backbone, task, config), config)
    module = CandidateSearch(backbone, task, bank, Method.of(config).how, config)
    module.prepare()
    shares = torch.full((1, 1, 5, 3), 1 / 3, requires_grad=True)
    prompts = task.support[:4]
    module.mixed_rewards(prompts, shares)
    before = backbone.token_forwards
    module.mixed_rewards(prompts, shares)
    above = 1 - int(bank.locations[:, 0].min()) / backbone.heads.depth
    assert backbone.token_forwards - before == 3 * 4 * above, "four branches of a token, forward and backward"
    kept = module.scorer.prefixes.get([module._prompt(q) for q in prompts])
    assert not any(t.requires_grad for prefix in kept for layer in prefix.layers for t in layer.values())


def test_validation_examples_are_held_out_of_everything_else(config, task):
    held = task.held_out(6)
    assert len(held.validation) == 6 and len(held.support) == 18 and held.evaluation == task.evaluation
    assert {e.id for e in held.validation} | {e.id for e in held.support} == {e.id for e in task.support}
    metrics = run(replace(config, dataset=replace(config.dataset, validation=6)), [])
    assert metrics["validation_n"] == 6 and 0 <= metrics["validation_accuracy"] <= 1
    (path,) = Path(config.outputs).glob("stages/scan-*/artefact.safetensors")
    from stv_exp.artefacts.scan import Scan

    used = Scan.load(path)
    seen = {*used.query_ids, *(i for ids in used.demonstration_ids for i in ids)}
    assert seen.isdisjoint(e.id for e in held.validation)


@pytest.mark.parametrize("n", [-1, 24])
def test_a_validation_split_that_leaves_no_support_is_refused(task: Task, n):
    with pytest.raises(StvError, match=f"dataset.validation={n} cannot be held out of the 24 support examples"):
        task.held_out(n)


def test_an_edit_is_its_formula():
    x, v = torch.randn(3, 4), torch.randn(3, 4)
    for mode, expected in (("replace", v), ("add", x + 0.3 * v), ("blend", 0.7 * x + 0.3 * v)):
        edit = Edit(mode, 0.3).insertion(torch.zeros(3, 1), v)
        keep = torch.zeros(3) if edit.keep is None else edit.keep
        torch.testing.assert_close(keep[:, None] * x + edit.values, expected)


def test_the_kinds_are_three_and_what_may_stand_instead():
    assert {"where": Where, "what": What, "how": How, "edit": Trained} == KINDS
    assert isinstance(Insertion(torch.zeros(0, 2), torch.zeros(0, 4)).map(torch.clone), Insertion)


@pytest.mark.parametrize("site", ["head", "residual"])  # there branches start above the first layer
@pytest.mark.parametrize(
    "how", ["reinforce", "bernoulli", "gumbel_softmax", "mixture", "ensemble", "cross_entropy", "greedy", "best_of"]
)
def test_a_killed_search_goes_on_bit_for_bit(backbone, task, config, how, site, tmp_path, monkeypatch, caplog):
    """Killed in steps 5 and 9 of 12, over more than one epoch, with the costs of all attempts counted."""
    monkeypatch.setattr("stv_exp.stages.checkpoint.EVERY", timedelta(0))
    caplog.set_level("INFO")
    policy = replace(config.policy, steps=12, queries=10, members=5)
    what = "mean" if how == "bernoulli" else "clusters"
    k = 5 if site == "head" else 1
    config = replace(with_method(config, how=how, what=what, site=site, k=k), policy=policy)
    bank = build_bank(scan(backbone, task, config), config)

    def spent() -> float:
        return backbone.token_forwards

    before = spent()
    whole = choose(backbone, task, bank, config)
    cost = spent() - before
    trained = CandidateSearch.training_step
    for kill in (5, 9):
        with monkeypatch.context() as patch:
            patch.setattr(CandidateSearch, "training_step", _killed(trained, kill))
            with pytest.raises(ZeroDivisionError):
                choose(backbone, task, bank, config, folder=tmp_path / "state")
    before = spent()
    parts = choose(backbone, task, bank, config, folder=tmp_path / "state")
    assert torch.equal(parts.choices, whole.choices) and torch.equal(parts.vectors, whole.vectors)
    assert parts.history == whole.history and parts.candidate_evaluations == whole.candidate_evaluations
    assert [r.args[0] for r in caplog.records if "goes on at step" in r.msg] == [5, 9]
    assert spent() - before == pytest.approx(cost), "the steps of the killed attempts count, and once what is before"


def _killed(trained, step):
    def training_step(self, queries, batch_idx):
        if self.step == step:
            raise ZeroDivisionError
        return trained(self, queries, batch_idx)

    return training_step


def test_a_damaged_state_of_a_search_is_left_and_a_kept_stage_leaves_none(config, caplog):
    folder = Store(config.outputs).scratch("policy", signatures(config).policy)
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(b"PK\x03\x04 half of it")
    run(config, [])
    assert "is damaged" in caplog.text and not folder.exists()


def test_a_run_hands_its_edit_on_to_its_vector(config):
    edit = InsertionConfig(when="prompt", mode="blend", weight=0.5, norm_preserving=True)
    run(replace(config, insertion=edit), [])
    (path,) = Path(config.outputs).glob("runs/*/task_vector.safetensors")
    vector = TaskVector.load(path)
    assert (vector.mode, vector.when, vector.norm_preserving) == ("blend", "prompt", True)
    assert torch.equal(vector.weights, torch.full((5,), 0.5))


def test_a_budget_counts_the_tokens_that_are_rewarded(backbone, task, config):
    """Answers of two tokens, of which the first alone is rewarded: twice as many steps. What ends them is one more."""
    template = replace(config.dataset.template, answer=" {answer} {answer}")
    config = replace(config, dataset=replace(config.dataset, template=template))
    bank = build_bank(scan(backbone, task, config), config)

    def steps(reward: str) -> int:
        one = replace(config, policy=replace(config.policy, budget=160, reward=reward))
        return CandidateSearch(backbone, task, bank, Method.of(one).how, one).steps

    assert (steps("all"), steps("first"), steps("ended")) == (10, 20, 6)
