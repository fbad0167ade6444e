"""`python -m stv_exp +experiment=NAME key=value ...` runs one experiment; with `-m` a sweep."""

import sys

from stv_exp.interruption import guarded


def main() -> int:
    """Entry point: the exit code. Signals are heard before anything heavy is imported."""
    from stv_exp import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(guarded(main))
