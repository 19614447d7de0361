"""The servers of a campaign: `python -m … serve …`, with a bug `python -m … --plant BUG serve …`.

They are distinv, in a hurry: who votes changes within seconds, and so little of the log is kept
that whoever was away for a moment needs a snapshot. A planted bug shows that a campaign would
notice. The product has neither switch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from attrs import evolve

from distinv import config
from distinv.cli.main import main
from distinv.errors import ConfigError
from distinv.testing.simulator.planted import PLANTED

_PLANT = "--plant"


def in_a_hurry() -> config.Config:
    """The default configuration, with the patience and the log of a cluster that lives a minute."""
    usual = config.Config()
    timing = evolve(
        usual.timing,
        autopilot_us=250 * config.MILLISECOND,
        promote_after_us=500 * config.MILLISECOND,
        evict_after_us=4 * config.SECOND,  # what is only killed, paused or cut is back before
        compact_us=1 * config.SECOND,
    )
    return evolve(usual, timing=timing, limits=evolve(usual.limits, log_keep_entries=50))


def program_with(bug: str = "") -> Sequence[str]:
    """What Python runs instead of distinv. Raises ConfigError for an unknown bug."""
    if bug and bug not in PLANTED:
        raise ConfigError(f"there is no bug {bug!r} to plant; choose from {', '.join(PLANTED)}")
    return ("-m", "distinv.testing.torture.campaign_server", *((_PLANT, bug) if bug else ()))


def _run(arguments: Sequence[str]) -> int:
    config.lan = in_a_hurry  # the command line takes it from there
    if arguments[0] != _PLANT:
        return main(arguments)
    with PLANTED[arguments[1]]():
        return main(arguments[2:])


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
