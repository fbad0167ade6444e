"""Artefacts are found by signature, shared by sweeps, and never half-written or half-read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from stv_exp.artefacts.bank import Bank
from stv_exp.config import ModelConfig
from stv_exp.disk.files import replaced_folder, write_text
from stv_exp.disk.store import Store
from stv_exp.identity import signatures
from stv_exp.pipeline import run
from stv_exp.task_vector import TaskVector
from tests.conftest import with_method


def bank(value: float = 1.0) -> Bank:
    return Bank(torch.zeros(1, 2, dtype=torch.long), torch.full((1, 1, 3), value), torch.ones(1, 1, dtype=torch.long))


def test_an_artefact_is_made_once(tmp_path):
    store, made = Store(tmp_path), []

    def build():
        made.append(1)
        return bank(), {"seconds": 7.0}

    for _ in range(3):
        found, cost = store.stage("bank", "abc", Bank, build)
        assert torch.equal(found.centroids, bank().centroids) and cost == {"seconds": 7.0}
    assert len(made) == 1


def test_parallel_jobs_wait_for_the_one_that_makes_it(tmp_path):
    made = []

    def job(_):
        def build():
            made.append(1)
            return bank(), {}

        return Store(tmp_path).stage("bank", "abc", Bank, build)[0].centroids.sum().item()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(job, range(8))) == {3.0}
    assert len(made) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no record"])
def test_a_damaged_artefact_is_made_anew(tmp_path, damage):
    store = Store(tmp_path)
    store.stage("bank", "abc", Bank, lambda: (bank(1.0), {}))
    folder = tmp_path / "stages" / "bank-abc"
    file = folder / "artefact.safetensors"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:20])
    else:
        (file if damage == "remove" else folder / "record.json").unlink()
    rebuilt, _ = store.stage("bank", "abc", Bank, lambda: (bank(2.0), {}))
    assert (rebuilt.centroids == 2).all()


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).stage("bank", "abc", Bank, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "stages" / "x") as new:
        (new / "half").write_text("half")
        _ = 1 / 0
    assert [p for p in (tmp_path / "stages").iterdir() if not p.name.endswith(".lock")] == []


def test_what_does_not_change_a_result_is_no_part_of_a_signature(config):
    same = replace(
        config,
        trainer=replace(config.trainer, batch_size=3, threads=1, progress_bar=True),
        tracker=replace(config.tracker, name="csv"),
        policy=replace(config.policy, cache_bytes=5),
        outputs="elsewhere",
        study="another",
    )
    assert signatures(same) == signatures(config)


def test_a_moved_model_folder_keeps_its_results(config, tmp_path):
    import shutil

    from stv_exp.models.sources import model_folder

    for name in ("a", "b"):
        shutil.copytree(model_folder("tiny"), tmp_path / name)
    a, b = (signatures(replace(config, model=ModelConfig(name=str(tmp_path / n)))) for n in "ab")
    assert a == b


def test_other_weights_are_another_model(config):
    assert signatures(replace(config, model=ModelConfig(name="testbed"))) != signatures(config)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"method": {"k": 4}}, {"scan"}),
        ({"method": {"m": 2}}, {"scan"}),
        ({"method": {"sensitivity": "snr"}}, {"scan"}),
        ({"method": {"how": "random"}}, {"scan", "bank"}),
        ({"policy": {"steps": 9}}, {"scan", "bank"}),
        ({"bank": {"identity": True}}, {"scan", "bank"}),
        ({"dataset": {"eval": 9}}, {"scan", "bank", "policy"}),
        ({"dataset": {"support": 20}}, set()),
        ({"dataset": {"label_noise": 0.1}}, set()),
        ({"scan": {"pairs": 11}}, set()),
        ({"model": {"dtype": "bfloat16"}}, set()),
    ],
)
def test_a_change_keeps_the_stages_before_it(config, change, shared):
    changed = replace(config, **{k: replace(getattr(config, k), **v) for k, v in change.items()})
    a, b = signatures(config), signatures(changed)
    assert {s for s in ("scan", "bank", "policy") if getattr(a, s) == getattr(b, s)} == shared
    assert a.run != b.run


def test_a_sweep_over_k_and_m_scans_once_and_a_second_run_is_a_lookup(config, tmp_path):
    for k, m in ((3, 2), (4, 2), (4, 3)):
        run(with_method(config, k=k, m=m), [])
    stages = sorted(p.name.split("-")[0] for p in (tmp_path / "outputs/stages").iterdir() if p.is_dir())
    assert stages == ["bank"] * 3 + ["policy"] * 3 + ["scan"]
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "outputs").rglob("*.*") if p.suffix != ".lock"}
    run(with_method(config, k=4, m=3), [])
    assert written == {p: p.stat().st_mtime_ns for p in written}


def test_a_run_folder_explains_itself(config, tmp_path):
    metrics = run(config, ["method=stv"])
    folder = tmp_path / "outputs" / "runs" / signatures(config).run
    names = {"config.yaml", "overrides.yaml", "manifest.json", "status.json", "metrics.json", "history.csv"}
    assert names | {"predictions.jsonl", "task_vector.safetensors"} <= {p.name for p in folder.iterdir()}
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 0 and set(manifest["inputs"]) == {"scan", "bank", "policy"}
    assert {"torch", "transformers", "stv_exp"} <= set(manifest["versions"])
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert metrics["accuracy"] == sum(p["correct"] for p in lines) / len(lines) and len(lines) == metrics["n"] == 12
    assert {"scan", "bank", "policy", "evaluation", "total"} == set(metrics["seconds"])
    assert metrics["candidate_evaluations"] == 6 * 2 * 4 and metrics["peak_memory_bytes"] > 0
    vector = TaskVector.load(folder / "task_vector.safetensors")
    assert vector.vectors.shape == (5, 8) and vector.metadata["method"] == "stv"


def test_parallel_jobs_of_one_signature_do_the_work_once(config, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda _: run(config, []), range(2))
    assert a == b, "the seconds, too, are those of the one job that ran"


def test_a_failed_run_says_so_and_can_be_repaired(config, tmp_path):
    with pytest.raises(Exception, match="k=99"):
        run(with_method(config, k=99), [])
    folder = tmp_path / "outputs" / "runs" / signatures(with_method(config, k=99)).run
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed" and "k=99" in status["error"]
    assert "StvError" in (folder / "traceback.txt").read_text()
    assert not (folder / "metrics.json").exists()


def test_a_task_vector_reproduces_its_runs_predictions(config, tmp_path, backbone):
    from stv_exp.data.prompts import make_prompt
    from stv_exp.data.shapes import load

    run(config, [])
    folder = tmp_path / "outputs" / "runs" / signatures(config).run
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    prompts = [make_prompt(config.dataset.template, e) for e in load(config.dataset).evaluation]
    batch = backbone.encode(prompts)
    with TaskVector.load(folder / "task_vector.safetensors").inserted(backbone.model):
        ids = backbone.model.generate(**batch, max_new_tokens=2, do_sample=False)
    texts = backbone.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [t.split("\n")[0].strip() for t in texts] == [p["prediction"] for p in lines]


def test_an_empty_folder_in_a_files_place_makes_room_and_one_that_holds_something_is_kept(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    write_text(tmp_path / "empty", "new")
    assert (tmp_path / "empty").read_text() == "new"
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "full", "new")
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["empty", "full", "mine"]
