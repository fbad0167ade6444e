"""`dataset=flowers`: Oxford Flowers-102, 8,189 pictures of 102 flowers; the official splits train, val and test.

`dataset.root` holds the unpacked `jpg/` and the files `imagelabels.mat` and `setid.mat`, which name classes by
number: the names are the official site's, in `flower_names.txt`. The extra `datasets` installs scipy to read them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.episodes import episode_task, picture_example
from stv_exp.data.files import known_split, read_lines, required, unique
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # keys of setid.mat
_NAMES = Path(__file__).with_name("flower_names.txt")


def load(config: DatasetConfig) -> Task:
    """Episodes or namings; raises `StvError` on what is missing or does not agree."""
    return episode_task(config, partial(_pictures, config))


def flower_names() -> list[str]:
    """The 102 class names; label `i` is item `i - 1`."""
    return read_lines(_NAMES)


def _pictures(config: DatasetConfig, split: str) -> list[Example]:
    key = _SPLITS[known_split(split, _SPLITS, config)]
    paths = {"pictures": "jpg", "labels": "imagelabels.mat", "splits": "setid.mat"}
    files = required(config.root, paths, config.name)
    names = _image_names(files["labels"])
    numbers = _numbers(files["splits"], key)
    unique(numbers, files["splits"])
    if not 1 <= min(numbers) <= max(numbers) <= len(names):
        raise StvError(
            f"{files['labels']} has {len(names)} labels, but {key} in {files['splits']} has pictures "
            f"{min(numbers)}-{max(numbers)}; download both files again."
        )
    pictures = {f"image_{number:05d}.jpg": names[number - 1] for number in numbers}
    return [picture_example(file, files["pictures"] / file, name, config) for file, name in pictures.items()]


def _image_names(path: Path) -> list[str]:
    """Class name of each picture, in the order of their numbers."""
    names, labels = flower_names(), _numbers(path, "labels")
    if not 1 <= min(labels) <= max(labels) <= len(names):
        raise StvError(f"{path} has labels {min(labels)}-{max(labels)}, not within 1-{len(names)}; download it again.")
    return [names[label - 1] for label in labels]


def _numbers(path: Path, key: str) -> list[int]:
    """A row of integers `[1, N]` of a MATLAB file, as a list."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise StvError("dataset=flowers needs the package scipy; run: pip install 'stv_exp[datasets]'.") from error
    try:
        found = loadmat(str(path), variable_names=[key]).get(key)
    except Exception as error:  # on damaged files scipy raises what its parser ran into, of many types
        raise StvError(f"{path} is no MATLAB file of version 4 to 7 ({error}); download it again.") from error
    if found is None or found.size == 0 or found.dtype.kind not in "iuf":
        raise StvError(f"{path} has no numbers under the key {key!r}; download it again.")
    return [int(number) for number in found.ravel()]
