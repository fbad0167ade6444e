"""`python -m stv_exp.report [outputs] [options]` compares the runs on disk."""

import argparse
import sys

from stv_exp.errors import StvError
from stv_exp.interruption import guarded
from stv_exp.report.axes import Axes
from stv_exp.report.comparison import report
from stv_exp.report.printing import folder, printed
from stv_exp.report.question import Question


def main() -> int:
    """Entry point: the exit code."""
    given = _parser().parse_args()
    return printed(lambda: report(given.outputs, given.study, _question(given)), "the report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stv_exp.report", description=__doc__)
    option = parser.add_argument
    option("outputs", nargs="?", default="outputs", type=folder, help="outputs folder (default: outputs)")
    option("--study", help="only the runs of this sweep (a folder of outputs/sweeps)")
    option("--where", action="append", default=[], metavar="KEY=VALUE[,VALUE]", help="only the runs that have this")
    option("--against", help="the method that the others are compared with (default: few-shot prompting, or the best)")
    option("--metric", help="score the predictions anew with this metric (default: as they were scored)")
    option(
        "--select", default=(), type=_keys, metavar="KEYS", help="settings to choose on validation: method.k,method.m"
    )
    option("--heads", action="store_true", help="instead: which heads were ranked and taken, and how stable that is")
    axes = parser.add_argument_group("a table of one's own", "keys as on the command line of a run, or the end of one")
    axes.add_argument("--rows", default=(), type=_keys, metavar="KEYS", help="what its rows are: method.k")
    axes.add_argument("--columns", default=(), type=_keys, metavar="KEYS", help="what its columns are: method.m")
    axes.add_argument(
        "--by", default=(), type=_keys, metavar="KEYS", help="what there is a table of each: dataset.task"
    )
    axes.add_argument("--values", default=(), type=_keys, metavar="KEYS", help="its numbers (default: accuracy)")
    return parser


def _question(given: argparse.Namespace) -> Question:
    axes = Axes(given.rows, given.columns, given.by, given.values)
    if axes.asked and given.against is not None:
        raise StvError("--against compares the rows of the usual table; leave it out, or leave out the axes.")
    if given.heads and (axes.asked or given.against is not None):
        raise StvError("--heads has tables of its own; leave out --against and the axes.")
    return Question(given.against, given.metric, given.select, tuple(given.where), axes, given.heads)


def _keys(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    sys.exit(guarded(main))
