"""The model card of what travels to the hub: what it is, what it fits, how good it was and how it is used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stv_exp.artefacts.values import fits, one_line

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

# Signs of Markdown and HTML; addresses, which become links by themselves; * and _ where they may begin or end emphasis.
_MARKS = re.compile(r"[&<>|`#~$@\\\[\]\"]|:(?=//)|(?<=www)\.|\*(?! )|(?<! )\*|(?<!\w)_|_(?!\w)", re.IGNORECASE)

_TEXT = """
# {title}

{summary}

{facts}{metrics}
## Use it

With `model` and `inputs` loaded as usual with transformers:

```python
from stv_exp import {kind}

{name} = {kind}.{load}
with {name}.inserted(model):
    ids = model.generate(**inputs)
```
"""


class Explained(Protocol):
    """What a card has to know: `noun` ("task vector") is what it is called, `file` where it lies."""

    noun: ClassVar[str]
    file: ClassVar[str]

    @property
    def metadata(self) -> dict[str, Any]: ...

    def summary(self) -> str:
        """What it is, in a sentence or two."""
        ...

    def facts(self) -> dict[str, Any]:
        """The rows of its table beside its origin."""
        ...


def card(artefact: Explained, repo_id: str | None) -> ModelCard:
    """The card of an artefact; with `repo_id` it is loaded from the hub, without from its file."""
    from huggingface_hub import ModelCard, ModelCardData

    method = one_line(artefact.metadata.get("method") or "")
    base = _hub_id(artefact.metadata.get("model"))
    results = _results(artefact.metadata)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name="stv_exp",
        tags=[artefact.noun.replace(" ", "-"), "in-context-learning", *([method] if method else [])],
        model_name=(repo_id or artefact.noun.replace(" ", "-")) if results else None,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{_text(artefact, repo_id)}")


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


def _text(artefact: Explained, repo_id: str | None) -> str:
    metrics = {name: f"{value:.4g}" for name, value in _metrics(artefact.metadata).items()}
    return _TEXT.format(
        title=_escaped(f"{artefact.noun.capitalize()}: {_described(artefact.metadata)}"),
        summary="\n".join(map(_escaped, artefact.summary().splitlines())),
        kind=type(artefact).__name__,
        name=artefact.noun.split()[-1],
        facts=_table("what", "value", _facts(artefact)),
        metrics=("\n## Metrics\n\n" + _table("metric", "value", metrics)) if metrics else "",
        load=f"from_hub({json.dumps(repo_id)})" if repo_id else f'load("{artefact.file}")',
    )


def _facts(artefact: Explained) -> dict[str, Any]:
    """The table's rows; None for what the metadata does not say."""
    metadata = artefact.metadata
    named = {key: metadata.get(key) for key in ("dataset", "method", "seed", "operation")}
    return {
        "model": metadata.get("model"),
        "model revision": metadata.get("revision"),
        **named,
        **{f"where {name} is": _origin(m) for name, m in _parents(metadata)},
        **artefact.facts(),
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
