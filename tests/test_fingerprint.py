"""A dataset is what its files hold: edited data are other data, and moved data are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stv_exp.config import Config
from stv_exp.data import fingerprint as module
from stv_exp.data.fingerprint import fingerprint
from stv_exp.identity import Signatures, signatures
from tests import official_episodes, official_vqa


@pytest.fixture
def root(tmp_path) -> Path:
    """Annotations of every kind beside pictures, and one that is too large to be read whole."""
    for name in ("a.json", "b.jsonl", "c.csv", "d.txt", "e.tsv", "f.mat", "g.parquet", "h.arrow", "sub/i.xml"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(f"content of {name}")
    (tmp_path / "data/large.json").write_bytes(bytes(module.WHOLE_BYTES + 5))
    for i in range(3):
        official_vqa.picture(tmp_path / f"data/images/{i}.jpg", i)
    return tmp_path / "data"


def signed(config: Config, **dataset: object) -> Signatures:
    return signatures(replace(config, dataset=replace(config.dataset, **dataset)))


def rewrite(path: Path, at: int = 0) -> None:
    """Another byte in a file of the same size."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def annotations(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".jpg")


def test_an_edited_annotation_of_the_same_size_is_another_dataset(config, root):
    seen = {signed(config, root=str(root))}
    for path in annotations(root):
        rewrite(path, path.stat().st_size // 3)  # of the large one no sample holds this byte
        seen.add(signed(config, root=str(root)))
    assert len(annotations(root)) == 10 and len({s.run for s in seen}) == len({s.scan for s in seen}) == 11


def test_added_removed_and_renamed_files_are_other_datasets(config, root):
    seen = [signed(config, root=str(root))]
    (root / "new.json").write_text("")
    seen.append(signed(config, root=str(root)))
    (root / "new.json").rename(root / "sub/new.json")
    seen.append(signed(config, root=str(root)))
    (root / "a.json").unlink()
    seen.append(signed(config, root=str(root)))
    (root / "images/0.jpg").rename(root / "images/9.jpg")
    seen.append(signed(config, root=str(root)))
    (root / "images/1.jpg").unlink()
    seen.append(signed(config, root=str(root)))
    assert len({s.run for s in seen}) == 6


def test_a_picture_counts_by_its_name_and_size(root):
    module._known.clear()
    before = fingerprint(str(root))
    rewrite(root / "images/0.jpg", 200)
    module._known.clear()
    assert fingerprint(str(root)) == before
    (root / "images/0.jpg").write_bytes(b"longer" * 1000)
    module._known.clear()
    assert fingerprint(str(root)) != before


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_moved_data_keep_their_results(config, root, tmp_path, move):
    before = signed(config, root=str(root))
    move(str(root), str(tmp_path / "elsewhere/data"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/data")
    assert (
        signed(config, root=str(tmp_path / "elsewhere/data")) == signed(config, root=str(tmp_path / "link")) == before
    )


def test_published_episodes_are_what_their_files_hold(config, tmp_path):
    data = official_episodes.flowers(tmp_path / "data")
    folder = official_episodes.annotations(tmp_path / "mtv", data)

    def now(folder: Path) -> Signatures:
        return signed(config, root=str(data), episode=replace(config.dataset.episode, annotations=str(folder)))

    before = now(folder)
    assert before != signed(config, root=str(data))
    shutil.copytree(folder, tmp_path / "copy")
    assert now(tmp_path / "copy") == before
    rewrite(folder / "flower_test.json", 30)
    assert now(folder) != before


@pytest.mark.parametrize("loader", ["stv_exp.data.easy_vqa", "stv_exp.data.tuxpaint"])
def test_data_of_an_installed_package_are_its_files(config, tmp_path, monkeypatch, loader):
    (tmp_path / "easy_vqa").mkdir()
    (tmp_path / "easy_vqa/__init__.py").touch()
    (tmp_path / "easy_vqa/questions.json").write_text("[1]")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "easy_vqa", raising=False)  # another test may have imported the installed one
    monkeypatch.setattr("stv_exp.data.installed.INSTALLED", str(tmp_path / "easy_vqa"))
    before = signed(config, loader=loader)
    rewrite(tmp_path / "easy_vqa/questions.json", 1)
    assert signed(config, loader=loader) != before


def test_a_hub_id_and_a_folder_that_is_not_there_stay_as_they_are(config, tmp_path):
    names = ("owner/name", "owner/other", "", str(tmp_path / "no"), "~/no/such", "~nobody9/x", "\0", "x" * 5000)
    assert [fingerprint(name) for name in names] == list(names)
    assert len({signed(config, root=name).run for name in names}) == len(names)


def test_the_code_of_a_loader_from_outside_counts(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "flags_alone.py").write_text("raise SystemExit  # never run by a look-up\n")
    (tmp_path / "flags_package").mkdir()
    for name in ("__init__", "part"):
        (tmp_path / f"flags_package/{name}.py").write_text("A = 1\n")
    changed = {"flags_alone": "flags_alone.py", "flags_package": "flags_package/part.py"}
    for loader, file in changed.items():
        before = signed(config, loader=loader)
        (tmp_path / file).write_text("A = 2\n")
        assert signed(config, loader=loader) != before
    assert signed(config, loader="no_such_module").run and signed(config, loader="no.such.module").run


def test_the_code_of_a_choice_from_outside_counts_with_what_it_inherits(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "far_base.py").write_text("from stv_exp.methods.how.random import Random\nclass Base(Random): ...\n")
    (tmp_path / "far_own.py").write_text("from far_base import Base\nclass Own(Base): ...\n")
    config = replace(config, method=replace(config.method, how="far_own.Own"))
    seen = {signatures(config).policy}
    for name in ("far_base.py", "far_own.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# edited\n")
        seen.add(signatures(config).policy)
    assert len(seen) == 3


def test_results_that_are_written_below_the_root_are_no_part_of_it(config, root):
    config = replace(config, outputs=str(root / "outputs"))
    before = signed(config, root=str(root))
    (root / "outputs/runs/x").mkdir(parents=True)
    (root / "outputs/runs/x/metrics.json").write_text("{}")
    (root / ".cache").mkdir()
    (root / ".cache/x.json").write_text("{}")
    assert signed(config, root=str(root)) == before


def test_pipes_circles_and_links_to_nowhere_neither_hang_nor_fail(root):
    os.mkfifo(root / "pipe.json")
    os.mkfifo(root / "images/pipe.jpg")
    (root / "images/round").symlink_to(root)
    (root / "nowhere.json").symlink_to(root / "gone")
    (root / "nowhere.jpg").symlink_to(root / "gone")
    (root / os.fsdecode(b"\xff.json")).write_text("{}")
    (root / os.fsdecode(b"\xff.jpg")).write_text("")
    assert fingerprint(str(root)) == fingerprint(str(root)) != str(root)


def test_folders_that_are_links_count_with_what_they_hold(root, tmp_path):
    official_vqa.picture(tmp_path / "far/x.jpg", 0)
    (tmp_path / "far/x.txt").write_text("1")
    (root / "far").symlink_to(tmp_path / "far")
    before = fingerprint(str(root))
    rewrite(tmp_path / "far/x.txt")
    assert fingerprint(str(root)) != before


def test_a_look_up_of_many_pictures_is_quick_and_quicker_in_a_sweep(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for i in range(10_000):
            (tmp_path / folder / f"{i}.jpg").touch()
    (tmp_path / "a.json").write_bytes(b"1" * 8_000_000)
    for path in (tmp_path, *tmp_path.iterdir()):
        os.utime(path, (1, 1))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        fingerprint(str(tmp_path))
        seconds.append(time.perf_counter() - start)
    print(f"20,000 pictures: {seconds[0]:.3f} s, then {seconds[1]:.4f} s")
    assert seconds[0] < 3


def test_a_folder_that_is_unchanged_is_listed_once(root, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED", -(10**18))
    fingerprint(str(root))
    monkeypatch.setattr(module, "_listed", None)
    fingerprint(str(root))


def test_a_signature_needs_no_torch(root):
    code = (
        "import sys; from stv_exp.config import *; from stv_exp.data.fingerprint import sources; "
        "sources(DatasetConfig('x', 'stv_exp.data.vizwiz', 'vqa', sys.argv[1])); "
        "print([m for m in ('torch', 'PIL', 'numpy', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
