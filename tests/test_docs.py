"""Every command and script of the docs runs as printed (searches and trainings with a small budget)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stv_exp.cli import configure
from stv_exp.data.tuxpaint import INSTALLED
from stv_exp.disk.study import Entry, Study
from stv_exp.methods.method import Method
from tests import emoji_package, forked
from tests.families import FAMILIES
from tests.official_vqa import vizwiz
from tests.qwen_vl_checkpoint import pickle_weights, write_qwen_vl

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
STUDIES = sorted((ROOT / "experiments").glob("**/README.md"))
DOCS = [ROOT / "README.md", *PAGES, *STUDIES, ROOT / "src/stv_exp/testbed/README.md"]
SMALL = ["dataset.support=12", "dataset.eval=4", "scan.pairs=8", "scan.shots=2", "policy.steps=2", "policy.samples=4"]
SMALL_SELECTION = ["policy.selection_draws=2", "policy.selection_items=2", "policy.queries=2"]
LASTING = (" method=", "smollm2", "--study", "queries_to_pay", "=check_data")
JOBS = 2  # of a sweep of one method; of several methods all, at one value each of what else varies
RIVALS = ["train.epochs=1", "train.shots=2", "train.batch=4"]
SMALL_RECIPE = ["tower_steps=1", "perception_steps=1", "steps=3", "images=60", "drawings=60", "sequences=2"]
STUDIES_OF_JOBS = ["where", "locations", "candidates", "policy", "when", "shots", "shift", "cost"]
STUDIES_OF_JOBS += ["better_testbed", "better_testbed_dev"]


def blocks(language: str, pages: Sequence[Path] = DOCS) -> list[str]:
    found = []
    for path in pages:
        found += re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return found


def commands(pages: Sequence[Path] = DOCS) -> list[str]:
    """Each line of the docs' shell blocks, comments and line continuations removed."""
    lines = "".join(blocks("bash", pages)).replace("\\\n", " ").splitlines()
    return sorted({line.split("#")[0].strip() for line in lines} - {""})


def python_commands(pages: Sequence[Path], others: Sequence[Path] = ()) -> list[str]:
    """Those that Python runs; of what stands in `others` too, theirs is enough."""
    return [c for c in commands(pages) if c.startswith("python -m stv_exp") and c not in commands(others)]


def in_turn(found: Sequence[str], slow: Callable[[str], bool]) -> list[Any]:
    """Commands as parameters, those marked that `make test` leaves out."""
    return [pytest.param(c, marks=pytest.mark.slow) if slow(c) else pytest.param(c) for c in found]


def lasting(command: str) -> bool:
    """Sweeps and what reads them, and whole jobs."""
    long = any(part in command for part in LASTING)
    return long and not {"--cfg", "plan=true"} & {*command.split()}


def small(command: str) -> list[str]:
    """The command's words, with a budget that a test can afford and this interpreter."""
    words = [sys.executable if w == "python" else w for w in shlex.split(command)]
    if "stv_exp.bench" in words:
        # All benchmarks run in `test_bench`; here it is the command that is to be understood.
        one = [] if words[3:] and not words[3].startswith("-") else ["insertion"]
        few = ["--size", "idefics2_1m", "--rounds", "1", "--device", "cpu", "--threads", "1"]  # the last of two counts
        return [*words[:3], *one, *words[3:], *few]
    if "stv_exp" not in words or words[3] in ("list", "status"):
        return words
    words = [word for word in words if word != "launch=joblib"]  # two processes, which are started in `test_launchers`
    if any(word.startswith("method=") and "," in word for word in words):
        words = [word if word.startswith("method=") else word.split(",")[0] for word in words]
    words = [fewer(word) for word in words] if "+experiment=sweep_km" in words else words
    words = ["dataset.validation=4" if word.startswith("dataset.validation=") else word for word in words]
    given = {w.split("=")[0] for w in words}
    if "+experiment=pretrain_testbed" in words:
        return words + [f"pretrain.{setting}" for setting in [*SMALL_RECIPE, "distinct_images=12"]]
    if any(f"+experiment={name}" in words for name in STUDIES_OF_JOBS):
        return [*words, "debug=true", "seed=0", f"hydra.sweeper.subset={JOBS}"]
    extra = read_by(words, SMALL + SMALL_SELECTION) + (["seed=0"] if "+experiment=quickstart" in words else [])
    extra += ["policy.members=2"] if "method.how=ensemble" in words else []  # of two queries
    if "-m" in words[3:] and "plan=true" not in words and not any("," in w for w in words if w.startswith("method=")):
        extra.append(f"hydra.sweeper.subset={JOBS}")
    if "+experiment=quickstart" in words:
        extra += ["dataset.task=colour-shared-0", "method=few_shot,stv,mtv"]
    if any(word.startswith("+experiment=rivals") for word in words):
        tasks = "easy-colour-0" if "+experiment=rivals_easy_vqa" in words else "shape-shared-0"
        own = ["method.shots=0,2"] if "+experiment=rivals_combine" in words else ["scan.per_label=1"]
        enough = "dataset.support=60"  # for 56 shots
        extra = [enough if word.startswith("dataset.support=") else word for word in extra]
        extra += [*RIVALS, *own, f"dataset.task={tasks}"]
    if "+experiment=smollm2" in words:
        extra += ["seed=0", "dataset.task=antonym", "method=few_shot,mtv,stv_identity"]
    if "+experiment=testbed_shots" in words:
        extra += ["method.shots=0,2"] + ([] if "dataset.task" in given else ["dataset.task=colour-0,size-1"])
    return words + [e for e in extra if e.split("=")[0] not in given]


def untracked(words: list[str]) -> list[str]:
    """Without W&B, which takes seconds a run: the README's own commands are tracked."""
    runs = words[2] == "stv_exp" and not {"list", "status"} & {*words}
    return words + ["tracker=none"] * (runs and not any(word.startswith("tracker=") for word in words))


def fewer(word: str) -> str:
    """The first two of the values that a sweep has."""
    key, equals, values = word.partition("=")
    return key + equals + ",".join(values.split(",")[:2])


def read_by(words: list[str], extra: list[str]) -> list[str]:
    """Those of `extra` that the command's (first) method reads; any other is refused."""
    first = [w.split(",")[0] for w in words if "=" in w and not w.startswith(("-", "+experiment"))]
    if "+experiment=sweep_km" in words:
        first.insert(0, "method=stv")
    if "+experiment=testbed_shots" in words:
        first.insert(0, "method=few_shot")
    elif "+experiment=sweep_km" not in words and any(w.startswith("+experiment") for w in words):
        return extra  # its methods share what they are given
    reads = Method.of(configure(*first)).reads
    return [e for e in extra if e.startswith("dataset.") or e.split("=")[0] in reads]


@pytest.fixture(scope="class")
def folder(tmp_path_factory) -> Path:
    """A place to run in, with one finished run for the commands that read results."""
    path = tmp_path_factory.mktemp("docs")
    run([sys.executable, "-m", "stv_exp", "method=stv", *SMALL], path)
    return path


def with_data(words: list[str], folder: Path) -> list[str]:
    """The command's words, with a small copy of the benchmark or the checkpoint where they name its folder."""
    if "dataset=tuxpaint" in words and not Path(INSTALLED).is_dir():
        pytest.skip("the Debian package tuxpaint-stamps-default is not installed")
    if "stv_exp.convert" in words:
        (folder / words[-1]).mkdir()
        write_qwen_vl(folder / words[-1])
        pickle_weights(folder / words[-1])
    if "stv_exp.figures" in words:
        write_figures(folder / words[3])
    if "stv_exp.keep" in words:
        for done in (folder / "outputs/runs").iterdir():
            Study(folder / "outputs", words[3]).add(done.name, Entry())
    if "dataset.root=vizwiz" in words:
        vizwiz(folder / "vizwiz", 40)
    if "+experiment=pretrain_testbed" in words:
        emoji_package.write(folder / "outputs/emoji")
    return words


def write_figures(study: Path) -> None:
    """A study's folder that asks for a table of the run that is there."""
    study.mkdir(parents=True, exist_ok=True)
    (study / "figures.yaml").write_text("methods: {study: runs, rows: [method]}")
    (study / "README.md").write_text("<!-- methods.csv -->\n")


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str] | forked.Ended:
    if words[1] == "-m" and words[2] in forked.MAINS:
        done = forked.run(cwd, *words[3:], module=words[2])
        assert done.returncode == 0, done.text
        return done
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "NO_MKDOCS_2_WARNING": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


STUDIED = python_commands(DOCS[1 + len(PAGES) :], DOCS[: 1 + len(PAGES)])


class TestTheReadme:
    """A class for each kind of page: workers take whole ones."""

    @pytest.mark.parametrize("command", python_commands(DOCS[:1]))
    def test_its_python_commands_run(self, command, folder):
        words = small(command)
        run(with_data(untracked(words) if "+experiment=quickstart" in words else words, folder), folder)


class TestThePages:
    @pytest.mark.parametrize("command", in_turn(python_commands(PAGES, DOCS[:1]), lasting))
    def test_their_python_commands_run(self, command, folder):
        run(with_data(untracked(small(command)), folder), folder)

    def test_the_wandb_commands_show_the_runs_and_would_send_them(self, folder):
        leet, sync = (c for c in commands() if c.startswith("wandb"))
        assert (leet, sync) == ("wandb leet outputs/wandb", "wandb sync outputs/wandb/offline-run-*")
        sent = run(["bash", "-c", sync.replace("sync", "sync --dry-run")], folder)
        assert "Would sync" in sent.stdout + sent.stderr
        (newest, *_) = sorted((folder / "outputs/wandb").glob("offline-run-*"))
        shown = run([sys.executable, "-m", "wandb", "leet", "inspect", "--summary", str(newest)], folder)
        assert "accuracy" in shown.stdout

    def test_a_kept_study_is_unpacked_as_it_is_said(self, folder):
        (keeping,), (unpacking,) = ([c for c in commands(PAGES) if part in c] for part in ("stv_exp.keep", "tar -xf"))
        run(with_data(small(keeping), folder), folder)
        (folder / "outputs").rename(folder / "before")
        try:
            (folder / "outputs").mkdir()
            run(shlex.split(unpacking), folder)
            assert {*Study(folder / "outputs", "three").runs()} == {*(folder / "outputs/runs").iterdir()} != set()
        finally:
            shutil.rmtree(folder / "outputs")
            (folder / "before").rename(folder / "outputs")

    def test_their_frames_hold_the_runs(self, folder):
        (script,) = (b for b in blocks("python") if "stv_exp.runs(" in b)
        done = forked.script(folder, script)
        assert done.returncode == 0 and "stv " in done.stdout, done.text


class TestTheStudies:
    @pytest.mark.parametrize("command", in_turn(STUDIED, lambda command: "--cfg" not in command))
    def test_their_python_commands_run(self, command, folder):
        run(with_data(untracked(small(command)), folder), folder)


@pytest.mark.slow
def test_the_stages_as_functions_are_called_as_the_docs_call_them(tmp_path):
    (script,) = (b for b in blocks("python") if "build_bank" in b)
    few = script.replace('"policy.steps=60"', '"policy.steps=2", "dataset.eval=4", "scan.pairs=8"')
    assert few != script
    assert "TaskVector(24 x 16 at head" in run([sys.executable, "-W", "error", "-c", few], tmp_path).stdout


def test_the_site_of_the_docs_is_built_without_a_warning(tmp_path):
    built = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = run([sys.executable, *built], ROOT)
    assert "WARNING" not in done.stderr and (tmp_path / "site/api/index.html").is_file()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make")])
def test_a_make_command_of_the_docs_has_its_target(command):
    """`make test` is what runs this, so only the target's recipe is looked up."""
    done = run(["make", "--dry-run", "--always-make", *command.split()[1:]], ROOT)
    assert "-m " in done.stdout or "pip install" in done.stdout or "mkdocs" in done.stdout


def test_no_command_of_the_docs_is_left_out():
    known = (
        "python -m stv_exp",
        "make",
        "wandb leet",
        "wandb sync",
        "git clone",
        "cd ",
        "tar -xf",
        "pip install",
        "hf download",
    )
    assert [c for c in commands() if not c.startswith(known)] == []


def test_the_plain_transformers_script_reproduces_the_runs_predictions(tmp_path):
    """As printed: after the command that it names, with its 200 eval pictures."""
    few_steps = ["policy.steps=10", "tracker=none"]
    run([sys.executable, "-m", "stv_exp", "method=stv", *few_steps], tmp_path)
    (script,) = (b for b in blocks("python") if "predictions.jsonl" in b)
    assert sum(bool(line.strip()) for line in script.splitlines()) <= 20
    run([sys.executable, "-W", "error", "-c", script], tmp_path)


def test_the_examples_of_own_parts_are_valid(tmp_path):
    """The YAML and the loader that the README shows for an own method and an own dataset run as printed."""
    own_model, own_dataset, own_method = blocks("yaml")
    FAMILIES["gpt2"](tmp_path / "checkpoint")  # of the pattern that is shown
    own_model = own_model.replace("owner/model", str(tmp_path / "checkpoint"))
    modules = [b for b in blocks("python") if b.startswith("# mine/")]
    for text in (own_model, own_dataset, own_method, *modules):
        path = tmp_path / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # From the repository's root, so that nothing is found by chance in the current folder.
    command = [sys.executable, "-m", "stv_exp", "--config-dir", str(tmp_path / "mine"), "tracker=none"]
    command += [f"outputs={tmp_path / 'outputs'}"]
    few = ["policy.steps=2", "policy.samples=4"]
    assert "cosine k=12 m=4 plain seed 0" in run([*command, *few, "dataset=flags", "method=cosine"], ROOT).stdout
    own_choice = ["dataset=flags", "method=cosine", "method.how=largest.LargestCluster"]
    assert "cosine k=12 m=4 plain seed 0" in run([*command, *own_choice], ROOT).stdout
    own_edit = ["dataset=flags", "method=learned", "method.edit=shift.Shift", "train.epochs=1"]
    assert "learned plain seed 0" in run([*command, *own_edit], ROOT).stdout
    words = ["dataset=words", "dataset.eval=2", "model=mine", "method=few_shot"]
    assert "3 layers x 4 heads of 12 at transformer.h" in run([*command, *words], ROOT).stdout


def test_the_pictures_of_the_docs_exist():
    for path in DOCS:
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / picture).is_file(), f"{path.name} shows {picture}"
