"""Figures as files: laid out once and drawn once a format, where `savefig` does either twice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_DOTS = 130  # an inch


def write_png(figure: Figure, path: Path) -> None:
    """The figure on white; raises `OSError`."""
    with _laid_out(figure):
        FigureCanvasAgg(figure).print_png(path)


def svg(figure: Figure, salt: str) -> str:
    """The figure on the ground of whatever it is shown on, its text as text, and the same for the same `salt`."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.patch.set_visible(False)
    with _laid_out(figure), rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    figure.patch.set_visible(True)
    return file.getvalue()


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Draw with text of any script, and keep the layout."""
    figure.set_dpi(_DOTS)
    with catch_warnings():
        filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        yield
    figure.set_layout_engine("none")
