"""Everything at once: storms drawn from a seed, with the witness looking on.

After a storm everything heals, and there must be a leader, one log, and answers to reads. Some
seeds have a story:

154 (of blank servers)  a late answer served a read that came after it
345, 19                 an idle follower's commit index stood still
189 (of blank servers)  a read during a hand-over: it fails, and may be asked again
"""

from __future__ import annotations

import pytest
from storm import Storm


@pytest.mark.parametrize("seed", [*range(40), 345, 548])
def test_a_cluster_weathers_a_storm(seed: int) -> None:
    Storm(seed).run()


@pytest.mark.parametrize("seed", [154, 189])
def test_blank_servers_weather_a_storm(seed: int) -> None:
    Storm(seed, born=False).run()
