"""A server with a bug that was planted on purpose: `python -m … BUG serve …`.

It shows that a campaign would notice. The product has no such switch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from distinv.cli.main import main
from distinv.errors import ConfigError
from distinv.testing.simulator.planted import PLANTED


def program_with(bug: str) -> Sequence[str]:
    """What Python runs instead of distinv. Raises ConfigError for an unknown bug."""
    if bug not in PLANTED:
        raise ConfigError(f"there is no bug {bug!r} to plant; choose from {', '.join(PLANTED)}")
    return ("-m", "distinv.testing.torture.planted_server", bug)


if __name__ == "__main__":
    with PLANTED[sys.argv[1]]():
        sys.exit(main(sys.argv[2:]))
