"""`python -m stv_exp +experiment=NAME key=value ...` runs one experiment; with `-m` a sweep."""

import sys

from stv_exp.cli import main

if __name__ == "__main__":
    sys.exit(main())
