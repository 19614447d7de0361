"""`distinv serve` that keeps little of its log: `python -m benchmarks.short_log ENTRIES serve …`.

With it a few commands are enough to leave a server behind, where no time is to be measured.
"""

from __future__ import annotations

import argparse
import sys
from unittest.mock import patch

from attrs import evolve

from distinv.cli import serve
from distinv.cli.main import main
from distinv.cli.options import config_of
from distinv.config import SECOND, Config


def keeping(entries: int) -> None:
    """Run the command line with it."""

    def short(options: argparse.Namespace) -> Config:
        config = config_of(options)
        timing = evolve(config.timing, compact_us=SECOND // 10)
        limits = evolve(config.limits, log_keep_entries=entries)
        return evolve(config, timing=timing, limits=limits)

    with patch.object(serve, "config_of", short):
        sys.exit(main(sys.argv[2:]))


if __name__ == "__main__":
    keeping(int(sys.argv[1]))
