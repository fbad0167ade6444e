"""Task vectors on the Hugging Face Hub: a repo with one safetensors file and the model card that explains it.

`TaskVector.push_to_hub` and `TaskVector.from_hub` are the door; everything here runs without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from stv_exp.artefacts.values import fits, one_line
from stv_exp.errors import StvError
from stv_exp.network import ask_hub, cache_if_offline, hub_address

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, HfApi, ModelCard
    from torch import Tensor

FILE = "task_vector.safetensors"
# Signs of Markdown and HTML; addresses, which become links by themselves; * and _ where they may begin or end emphasis.
_MARKS = re.compile(r"[&<>|`#~$@\\\[\]\"]|:(?=//)|(?<=www)\.|\*(?! )|(?<! )\*|(?<!\w)_|_(?!\w)", re.IGNORECASE)

_TEXT = """
# {title}

A task vector: {k} activations ({site}) that stand for the demonstrations of a task. Inserted into the frozen
model at the last token of a query, they take the place of a many-shot prompt.

{facts}{metrics}
## Use it

With `model` and `inputs` loaded as usual with transformers:

```python
from stv_exp import TaskVector

vector = TaskVector.{load}
with vector.inserted(model):
    ids = model.generate(**inputs)
```
"""


class Vector(Protocol):
    """What a push has to know of a task vector."""

    @property
    def locations(self) -> Tensor: ...
    @property
    def vectors(self) -> Tensor: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def mode(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def when(self) -> str: ...
    def save(self, path: Path | str) -> None: ...


def push(
    vector: Vector, repo_id: str, *, private: bool, revision: str | None, token: str | None, commit_message: str
) -> str:
    """Upload `vector` and its card and return the commit's url; see `TaskVector.push_to_hub`."""
    with _explained(repo_id, revision, writing=True):
        ask_hub()  # the client would try for half a minute
        api = _api(token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with its owner, if none was given
        if revision and not revision.startswith("refs/"):  # refs/pr/1 comes from opening a pull request
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    with TemporaryDirectory() as folder:
        write_folder(vector, folder, repo_id)
        with _explained(repo_id, revision, writing=True):
            done = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
            return done.commit_url


def download(repo_id: str, revision: str | None = None, token: str | None = None) -> Path:
    """The file of a repo's task vector, from the cache where it is there; raises `StvError` where there is none."""
    with _explained(repo_id, revision), cache_if_offline():
        return Path(_api(token).hf_hub_download(repo_id, FILE, revision=revision))


def write_folder(vector: Vector, folder: Path | str, repo_id: str | None = None) -> None:
    """Write what a push uploads: `task_vector.safetensors` and `README.md`, the card.

    With `repo_id` the card shows how to load the vector from the hub, without it from the file.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    vector.save(Path(folder) / FILE)
    _card(vector, repo_id).save(Path(folder) / "README.md")


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(hub_address(), token=token)


def _card(vector: Vector, repo_id: str | None) -> ModelCard:
    from huggingface_hub import ModelCard, ModelCardData

    method = one_line(vector.metadata.get("method") or "")
    base = _hub_id(vector.metadata.get("model"))
    results = _results(vector.metadata)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name="stv_exp",
        tags=["task-vector", "in-context-learning", *([method] if method else [])],
        model_name=(repo_id or "task-vector") if results else None,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{_text(vector, repo_id)}")


def _hub_id(model: Any) -> str | None:
    """`model` where it reads as owner/name and is no folder of this machine."""
    looks_so = isinstance(model, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model, re.ASCII)
    return model if looks_so and not Path(model).exists() else None


def _results(metadata: dict[str, Any]) -> list[EvalResult]:
    """The accuracy as the hub's `model-index` wants it, which is for a named dataset."""
    from huggingface_hub import EvalResult

    accuracy, dataset = _metrics(metadata).get("accuracy"), metadata.get("dataset")
    if accuracy is None or not dataset:
        return []
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=one_line(dataset).partition("/")[0],
            dataset_name=one_line(dataset),
            metric_type="accuracy",
            metric_value=accuracy,
        )
    ]


def _metrics(metadata: dict[str, Any]) -> dict[str, float]:
    """The numbers among them, of a size that can be written."""
    metrics = metadata.get("metrics") or {}
    return {name: value for name, value in metrics.items() if fits(value, float) and abs(value) < 1e100}


def _text(vector: Vector, repo_id: str | None) -> str:
    metrics = {name: f"{value:.4g}" for name, value in _metrics(vector.metadata).items()}
    return _TEXT.format(
        title=_escaped(f"Task vector: {_described(vector.metadata)}"),
        k=len(vector.locations),
        facts=_table("what", "value", _facts(vector)),
        metrics=("\n## Metrics\n\n" + _table("metric", "value", metrics)) if metrics else "",
        site=_escaped(vector.site),
        load=f"from_hub({json.dumps(repo_id)})" if repo_id else f'load("{FILE}")',
    )


def _facts(vector: Vector) -> dict[str, Any]:
    """The table's rows; None for what the metadata does not say."""
    metadata = vector.metadata
    named = {key: metadata.get(key) for key in ("dataset", "method", "seed", "operation")}
    return {
        "model": metadata.get("model"),
        "model revision": metadata.get("revision"),
        **named,
        **{f"where {name} is": _origin(m) for name, m in _parents(metadata)},
        "site": vector.site,
        "mode": vector.mode,
        "when": vector.when,
        "locations (K)": len(vector.locations),
        "dimension": vector.vectors.shape[1],
        "layers": ", ".join(str(layer) for layer in vector.locations[:, 0].unique().tolist()),
    }


def _described(metadata: dict[str, Any]) -> str:
    known = [metadata[key] for key in ("operation", "method", "dataset", "model") if metadata.get(key)]
    return ", ".join(str(value) for value in known) or "of unknown origin"


def _origin(metadata: dict[str, Any]) -> str:
    """A vector that went into another, down to those that a search found."""
    return _described(metadata) + "".join(f" ({name}: {_origin(m)})" for name, m in _parents(metadata))


def _parents(metadata: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(zip("ab", metadata.get("made_from") or (), strict=False))


def _table(left: str, right: str, rows: dict[str, Any]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    lines += [f"| {_escaped(key)} | {_escaped(value)} |" for key, value in rows.items() if value is not None]
    return "\n".join(lines) + "\n"


def _escaped(value: Any) -> str:
    """A value as one line of text that is nothing else in Markdown or HTML: the metadata may be someone else's."""
    return _MARKS.sub(lambda match: "".join(f"&#{ord(character)};" for character in match[0]), one_line(value))


@contextmanager
def _explained(repo_id: str, revision: str | None, writing: bool = False) -> Iterator[None]:
    """Turn whatever the client raises in the block into one sentence."""
    try:
        yield
    except Exception as error:  # its HTTP library's errors too, and which library that is depends on its version
        raise StvError(_sentence(_cause(error), repo_id, revision, writing)) from error


def _cause(error: Exception) -> BaseException:
    """The download says "not in the cache" where the hub gave nothing; the reason is behind it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return (error.__cause__ or error) if isinstance(error, LocalEntryNotFoundError) else error


def _sentence(error: BaseException, repo_id: str, revision: str | None, writing: bool) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.OfflineModeIsEnabled) and not constants.HF_HUB_OFFLINE:
        return f"The hub at {hub_address()} cannot be reached for {repo_id}; try again when it answers."
    known = {
        errors.HFValidationError: f"{repo_id} is not a repo id of the hub; write it as owner/name.",
        errors.OfflineModeIsEnabled: f"{repo_id} cannot be reached because HF_HUB_OFFLINE is set; unset it.",
        errors.RevisionNotFoundError: f"{repo_id} has no revision {revision}; name a branch, tag or commit of it.",
        errors.RemoteEntryNotFoundError: f"{repo_id} holds no {FILE}; name a repo that push_to_hub has written.",
    }
    for kind, sentence in known.items():
        if isinstance(error, kind):
            return sentence
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return _refused(repo_id, writing)
    return _failed(error, status, repo_id, writing)


def _refused(repo_id: str, writing: bool) -> str:
    if writing:
        return f"You may not write to {repo_id}; pass a token that may, or log in with `hf auth login`."
    return f"{repo_id} is not on the hub or is private; check its name, or log in with `hf auth login`."


def _failed(error: BaseException, status: int, repo_id: str, writing: bool) -> str:
    reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0].rstrip(".: ")
    if status >= 500 or type(error).__module__.startswith("httpx"):  # the library httpx, or its successor httpx2
        return f"The hub at {hub_address()} cannot be reached for {repo_id} ({reason}); try again when it answers."
    return f"{repo_id} cannot be {'written' if writing else 'read'} ({reason}); mend that and try again."
