"""`python -m distinv` is `distinv`."""

from __future__ import annotations

import sys

from distinv.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
