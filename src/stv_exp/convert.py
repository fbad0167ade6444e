"""`python -m stv_exp.convert qwen_vl FOLDER`: weights of an old format to safetensors, beside them in their folder."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from stv_exp.data.files import expanded
from stv_exp.interruption import guarded
from stv_exp.report.printing import written
from stv_exp.report.screen import print_line

_BY_MODEL = {"qwen_vl": "stv_exp.models.qwen_vl_v1.weights"}  # modules with `convert(folder)`, which says what it did


def main() -> int:
    """Entry point: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stv_exp.convert", description=__doc__)
    parser.add_argument("model", choices=_BY_MODEL, help="whose published format the folder has")
    parser.add_argument("folder", help="a downloaded repository: config.json, the weights, the tokenizer's file")
    given = parser.parse_args()
    convert = import_module(_BY_MODEL[given.model]).convert
    return written(lambda: print_line(convert(expanded(given.folder))), "the folder")


if __name__ == "__main__":
    sys.exit(guarded(main))
