"""`python -m stv_exp +experiment=NAME key=value ...` runs one experiment; with `-m` a sweep.

`python -m stv_exp list|status|report|publish|convert ...` is `python -m stv_exp.<word> ...`. The console script
`stv_exp` is the same.
"""

import sys
from importlib import import_module

from stv_exp.interruption import guarded

_COMMANDS = {
    "list": "stv_exp.listing",
    "status": "stv_exp.status",
    "report": "stv_exp.report.__main__",
    "publish": "stv_exp.publish.__main__",
    "convert": "stv_exp.convert",
}


def main() -> int:
    """The exit code. Signals are heard before anything heavy is imported."""
    command = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command:
        del sys.argv[1]
    return int(import_module(command or "stv_exp.cli").main())


def script() -> int:
    """Entry point of the console script."""
    return guarded(main)


if __name__ == "__main__":
    sys.exit(script())
