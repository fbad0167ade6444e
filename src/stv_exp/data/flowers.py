"""`dataset=flowers`: Oxford Flowers-102, 8,189 pictures of 102 flowers; the official splits train, val and test.

`dataset.root` holds the unpacked `jpg/` and the files `imagelabels.mat` and `setid.mat`, which name classes by
number: the names are the official site's, in `flower_names.txt`. The extra `flowers` installs scipy to read them.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from pathlib import Path

from stv_exp.config import DatasetConfig
from stv_exp.data.broken import sound
from stv_exp.data.episodes import episode_task, picture_example
from stv_exp.data.files import check_file, known_split, read_lines, required
from stv_exp.data.task import Example, Task
from stv_exp.errors import StvError

READS = ("root", "support_split", "eval_split", "skip_broken", "episode")

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
    names, labels = flower_names(), _numbers(files["labels"], "labels")

    def make(number: float) -> Example:
        picture = _within(number, len(labels), f"{files['splits']} has {number:g} under {key!r}")
        label = labels[picture - 1]
        named = _within(label, len(names), f"{files['labels']} has {label:g} as the label of picture {picture}")
        file = f"image_{picture:05d}.jpg"
        return picture_example(file, files["pictures"] / file, names[named - 1], config)

    return sound(_numbers(files["splits"], key), make, attrgetter("id"), files["splits"], config)


def _within(number: float, most: int, found: str) -> int:
    """A whole number from 1; a MATLAB file may hold any others."""
    if not (number.is_integer() and 1 <= number <= most):
        raise StvError(f"{found}, not a whole number within 1-{most}; download both files again.")
    return int(number)


def _numbers(path: Path, key: str) -> list[float]:
    """A row of numbers `[1, N]` of a MATLAB file, as a list."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise StvError("dataset=flowers needs the package scipy; run: pip install 'stv_exp[flowers]'.") from error
    check_file(path)
    try:
        found = loadmat(str(path), variable_names=[key]).get(key)
    except Exception as error:  # on damaged files scipy raises what its parser ran into, of many types
        raise StvError(f"{path} is no MATLAB file of version 4 to 7 ({error}); download it again.") from error
    if found is None or found.size == 0 or found.dtype.kind not in "iuf":
        raise StvError(f"{path} has no numbers under the key {key!r}; download it again.")
    return [float(number) for number in found.ravel()]
