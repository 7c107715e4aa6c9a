"""`python -m adserver` is `adserver`."""

import sys

from adserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
