"""`python -m stv_exp.report [outputs] [options]` compares the runs on disk."""

import argparse
import io
import os
import sys
from pathlib import Path

from stv_exp.errors import StvError
from stv_exp.report.comparison import report
from stv_exp.report.text import one_line


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp.report", description=__doc__)
    parser.add_argument("outputs", nargs="?", default="outputs", type=_folder, help="outputs folder (default: outputs)")
    parser.add_argument("--study", help="only the runs of this sweep (a folder of outputs/sweeps)")
    parser.add_argument("--against", help="the method that the others are compared with (default: the best)")
    parser.add_argument("--metric", help="score the predictions anew with this metric (default: as they were scored)")
    parser.add_argument("--select", metavar="KEYS", help="settings to choose on validation accuracy: method.k,method.m")
    arguments = parser.parse_args()
    select = [] if arguments.select is None else arguments.select.split(",")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know no ±
    try:
        report(arguments.outputs, arguments.study, arguments.against, metric=arguments.metric, select=select)
        sys.stdout.flush()
    except StvError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the output itself: `| head`, or a full disk behind `>`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        if not isinstance(error, BrokenPipeError):
            print(
                f"Error: The report cannot be printed ({one_line(error.strerror)}); print it elsewhere.",
                file=sys.stderr,
            )
        return 1
    return 0


def _folder(text: str) -> Path:
    """Shells leave a quoted `~` as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody of that name
        return Path(text)


if __name__ == "__main__":
    sys.exit(main())
