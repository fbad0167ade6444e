"""A figure inside the page: vector graphics in the page's own colours and font."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from stv_exp.report.pictures.canvas import INK
from stv_exp.report.pictures.saved import svg

_CAPTIONS = {
    "accuracy.png": "Accuracy by task. Dark: the mean over seeds, with the 95% interval over items; light: each seed. "
    "The best 30 rows.",
    "k_and_m.png": "Accuracy over K (locations) and M (candidates a location), mean over tasks and seeds.",
    "by_k.png": "Accuracy against K, a line for each M: mean over tasks, band of one standard deviation over seeds.",
    "cost.png": "Accuracy against what a run costs, a point a row of the table; dashed: the best without a search.",
    "stages.png": "What a run spends in each stage, mean over tasks and seeds. The 30 most expensive rows.",
    "rewards.png": "Reward of each search by step against random candidates: mean and one standard deviation over "
    "tasks and seeds, running mean of 9 steps. The 12 best rows.",
    "sensitivity.png": "What locations were ranked by, mean over tasks and seeds (of one kind: by task). Squares: "
    "the locations taken, as strong as the share of runs that took them.",
}
_REFERENCE = re.compile(r"(?<=url\(#)|(?<=^#)")
_REFERENCED = re.compile(r"(?:url\(|href=\")#([^)\"]+)")
_DROPPED = ("metadata", "style")  # a style inside the page would be that of the whole page


@dataclass(frozen=True)
class Drawing:
    """`svg` for the page, what it shows in words, and its width in inches; `name` is unique."""

    name: str
    caption: str
    svg: Markup
    width: float


def drawing(name: str, figure: Figure) -> Drawing:
    """A figure of the gallery, by the name of its file."""
    key, caption = name.partition(".")[0], _CAPTIONS[name]
    drawn = svg(figure, key)
    root, referenced = ElementTree.fromstring(drawn), set(_REFERENCED.findall(drawn))
    for element in list(root.iter()):
        _adopt(element, key, referenced)
    root.attrib |= {"role": "img", "aria-label": caption}
    return Drawing(key, caption, Markup(ElementTree.tostring(root, encoding="unicode")), figure.get_figwidth())


def _adopt(element: ElementTree.Element, prefix: str, referenced: Collection[str]) -> None:
    """Make an element the page's: no namespace, the page's ink, and an id of the picture where one is needed."""
    element.tag = element.tag.rpartition("}")[2]
    for child in [child for child in element if child.tag.rpartition("}")[2] in _DROPPED]:
        element.remove(child)
    if element.get("id") not in referenced:
        element.attrib.pop("id", None)
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        own = f"{prefix}-{value}" if key == "id" else _REFERENCE.sub(f"{prefix}-", value)
        element.set(key.rpartition("}")[2], own.replace(INK, "currentColor"))
