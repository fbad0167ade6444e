"""A study made by hand, as large as asked for: methods and a sweep over K and M, with pictures, curves and rankings."""

from __future__ import annotations

import base64
import io
import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from stv_exp.disk.files import read_json, write_json
from tests.report_runs import write_run

_ITEMS = 24
_WORDS = ("red", "green", "blue")
_LAYERS, _HEADS, _STEPS = 4, 8, 40


def write_study(outputs: Path, ks: list[int], ms: list[int], seeds: list[int], tasks: list[str]) -> None:
    """`len(seeds) * len(tasks)` runs of each K and M of stv, and as many of few_shot, zero_shot and mtv."""
    for k, m in product(ks, ms):
        quality = 0.9 - 0.5 / k - 0.2 / m
        _method(outputs, {"name": "stv", "k": k, "m": m, "sensitivity": "l2"}, quality, 6000 + 90 * k * m, seeds, tasks)
    for name, quality, tokens in (("few_shot", 0.85, 0), ("zero_shot", 0.3, 0), ("mtv", 0.8, 20_000)):
        _method(outputs, {"name": name}, quality, tokens, seeds, tasks)


def _method(
    outputs: Path, method: dict[str, object], quality: float, tokens: int, seeds: list[int], tasks: list[str]
) -> None:
    for seed, (harder, task) in product(seeds, enumerate(tasks)):
        name = "-".join(str(value) for value in (*method.values(), task, seed))
        draw = random.Random(name)
        said = [_WORDS[i % 3] if draw.random() < quality - 0.05 * harder else "yellow" for i in range(_ITEMS)]
        folder = write_run(
            outputs, name, said, ["?"], seed=seed, method=method, dataset={"name": "made", "task": task},
            model={"name": "testbed"}, policy={"steps": _STEPS},
        )  # fmt: skip
        _complete(folder, tokens, [f"method={method['name']}", f"dataset.task={task}", f"seed={seed}"])
        if tokens:
            _searched(outputs, folder, draw)


def _complete(folder: Path, tokens: int, command: list[str]) -> None:
    """Answers that differ by item, costs by stage, pictures of the first items, the command."""
    path = folder / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    scored = [
        line | {"answers": [word := _WORDS[i % 3]], "correct": float(line["prediction"] == word)}
        for i, line in enumerate(lines)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in scored))
    accuracy = sum(line["correct"] for line in scored) / len(scored)
    searching = {"scan": 0.3 * tokens, "bank": 0, "policy": 0.7 * tokens} if tokens else {}
    costs = searching | {"evaluation": 1400 if tokens else 9000}
    seconds = {stage: cost / 3000 for stage, cost in costs.items()}
    bounds = {"accuracy_low": max(0.0, accuracy - 0.1), "accuracy_high": min(1.0, accuracy + 0.1)}
    metrics = {"accuracy": accuracy, "seconds": seconds | {"total": sum(seconds.values())}, "token_forwards": costs}
    write_json(folder / "metrics.json", (read_json(folder / "metrics.json") or {}) | metrics | bounds)
    manifest = read_json(folder / "manifest.json") or {}
    write_json(folder / "manifest.json", manifest | {"versions": {"stv_exp": "0.2.0", "torch": "2.13.0"}})
    (folder / "overrides.yaml").write_text(yaml.safe_dump(command))
    kept = [{"id": line["id"], "pictures": [_picture(line["answers"][0])]} for line in scored]
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in kept))


def _searched(outputs: Path, folder: Path, draw: random.Random) -> None:
    """A curve that rises, and a bank of its own."""
    rows = [f"{-3 + 2 * i / _STEPS + draw.random()},{-3 + draw.random()}" for i in range(_STEPS)]
    (folder / "history.csv").write_text("reward,reward_random\n" + "\n".join(rows))
    manifest = read_json(folder / "manifest.json") or {}
    write_json(folder / "manifest.json", manifest | {"inputs": {"bank": folder.name}})
    bank = outputs / "stages" / f"bank-{folder.name}"
    bank.mkdir(parents=True)
    scores = np.random.default_rng(draw.randrange(99)).random((_LAYERS, _HEADS), dtype=np.float32)
    locations = np.stack(np.unravel_index(scores.argsort(axis=None)[-6:], scores.shape), axis=1)
    save_file({"scores": scores, "locations": locations}, bank / "artefact.safetensors", {"Bank": "{}"})


def _picture(colour: str) -> str:
    image = Image.new("RGB", (48, 48), "white")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=colour)
    file = io.BytesIO()
    image.save(file, "WEBP")
    return base64.b64encode(file.getvalue()).decode()
