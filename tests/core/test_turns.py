"""Who may campaign next when campaigns fail: everybody in turn, or the only one who could win waits
for as long as chance likes (90 seconds, once, before turns were kept)."""

from __future__ import annotations

import pytest
from scene import Scene, log_of

from distinv.entry import Ballot, NodeId
from distinv.wire.messages import Prepare, Promise, PullReply

FIVE = (1, 2, 3, 4, 5)


def campaigners(scene: Scene) -> list[int]:
    """Who campaigned, in the order of the ballots, until somebody leads."""
    assert scene.run(120_000, lambda: scene.leader is not None)
    prepared = dict.fromkeys(
        message.ballot for _, _, message in scene.sent if isinstance(message, Prepare)
    )
    return [ballot.node for ballot in prepared]


@pytest.mark.parametrize("seed", range(40))
def test_whose_promises_are_lost_campaigns_once_before_who_can_win(seed: int) -> None:
    scene = Scene(5, seed=seed)
    scene.lose = lambda source, to, message: isinstance(message, Promise) and to != 5
    before = campaigners(scene)
    assert before[-1] == 5
    assert len(set(before)) == len(before)


@pytest.mark.parametrize("seed", range(40))
def test_who_cannot_get_what_it_lacks_campaigns_once_before_who_has_it(seed: int) -> None:
    """They look like leaders while they pull: that alone ends nobody's waiting."""
    logs = dict.fromkeys(FIVE, log_of(FIVE, (1, 5)))
    logs[5] = log_of(FIVE, (1, 5), (1, 5))
    scene = Scene(5, seed=seed, logs=logs, promised=dict.fromkeys(FIVE, Ballot(1, NodeId(5))))
    scene[1].crash()
    scene[2].crash()
    scene.lose = lambda source, to, message: isinstance(message, PullReply)
    before = campaigners(scene)
    assert before[-1] == 5
    assert len(set(before)) == len(before)


def test_once_somebody_leads_the_turns_begin_anew() -> None:
    scene = Scene(3)
    leader = scene.settle()
    assert all(server.node.campaigns.turn_at is None for server in scene.servers.values())
    leader.crash()
    assert scene.run(5_000, lambda: scene.leader is not None)
    followers = [s for s in scene.servers.values() if s.alive and not s.leads]
    assert [server.node.campaigns.turn_at for server in followers] == [None]
