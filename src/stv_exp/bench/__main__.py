"""`python -m stv_exp.bench`: prints the figures beside their aims and writes `outputs/bench.json`.

On an accelerator: `python -m stv_exp.bench --size idefics2_8b --device cuda --dtype bfloat16 --json FILE`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stv_exp.bench import gradient, insertion, late, locations, pictures, scan, search, sites, start
from stv_exp.bench.subject import SIZES, make_subject
from stv_exp.bench.timing import Measurement
from stv_exp.disk.files import write_json
from stv_exp.disk.run import versions
from stv_exp.interruption import guarded

BENCHMARKS = {
    "search": search.measure,
    "gradient": gradient.measure,
    "sites": sites.measure,
    "late": late.measure,
    "scan": scan.measure,
    "locations": locations.measure,
    "pictures": pictures.measure,
    "insertion": insertion.measure,
    "start": start.measure,
}


def main() -> int:
    """Measure what was asked for, show it and keep it: the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {arguments.device}: torch finds no GPU; leave it out")
    torch.set_num_threads(arguments.threads)
    subject = make_subject(arguments.size, arguments.device, arguments.dtype)
    done = {
        name: BENCHMARKS[name](subject, arguments.rounds)
        for name in track(arguments.benchmarks or list(BENCHMARKS), "Measuring", transient=True)
    }
    Console().print(_table(done, arguments.size))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.json, as_json(done, {**vars(arguments), "json": None, "parameters": subject.n_parameters}))
    return 0


def as_json(done: dict[str, Measurement], about: dict[str, Any]) -> dict[str, Any]:
    """Each figure under its dotted name, and by benchmark with its aim and the raw seconds and bytes beside it."""
    flat = {f"{bench}.{name}": figure.value for bench, m in done.items() for name, figure in m.figures.items()}
    nested = {
        bench: {name: figure.value for name, figure in m.figures.items()}
        | {
            "aims": {name: figure.aim for name, figure in m.figures.items() if figure.aim is not None},
            "seconds": dict(m.seconds),
            "bytes": dict(m.n_bytes),
        }
        for bench, m in done.items()
    }
    return flat | nested | {"about": about | {"versions": versions()}}


def _table(done: dict[str, Measurement], title: str) -> Table:
    table = Table("figure", "measured", "aim", title=title)
    for bench, measurement in done.items():
        for name, figure in measurement.figures.items():
            sign = ">=" if figure.at_least else "<="
            aim = "" if figure.aim is None else f"{sign} {figure.aim:g}{'' if figure.met else ' (missed)'}"
            table.add_row(f"{bench}.{name}", f"{figure.value:.3g}", aim)
        for name, value in measurement.seconds.items():
            table.add_row(f"  {name}", f"{value * 1000:.2f} ms", "")
        table.add_section()
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stv_exp.bench", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--size", default="idefics2_38m", choices=list(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=Path("outputs/bench.json"))
    return parser


if __name__ == "__main__":
    sys.exit(guarded(main))
