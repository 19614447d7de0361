"""A snapshot takes the place of the store: what the log and the promise are then."""

from __future__ import annotations

from typing import Any

from scene import Scene, voter_set

from distinv.core.events import Installed
from distinv.entry import Ballot, NodeId, Position
from distinv.storage.api import BaseRecord


def snapshot_at(index: int, ballot: Ballot) -> Installed:
    position = Position(index, ballot, b"the hash of that entry, elsewhere"[:16])
    return Installed(BaseRecord(position, 1, 1, Ballot(0, 0), voter_set((1, 2, 3))))


def behind(scene: Scene) -> Any:
    """A follower with entries that nobody committed."""
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(3)
    for number in range(1, 4):
        leader.submit(number)
    scene.run(1_000)
    return scene[3]


def test_a_log_that_went_another_way_is_dropped_with_what_was_durable_of_it() -> None:
    """Seed 9154 of the simulator: the disk vouched for entries that were no more."""
    scene = Scene(3)
    follower = behind(scene)
    leader = scene[1]
    scene.isolate(1)
    for number in range(4, 9):
        leader.submit(number)
        leader.turn()
    scene.run(100)
    last = leader.node.log.last_index
    index = leader.node.commit + 1
    assert index < last
    assert leader.node.durability.durable_index > index
    ballot = Ballot(leader.node.promised.term + 3, 2)
    leader.turn(snapshot_at(index, ballot))
    node = leader.node
    assert (node.log.last_index, node.durability.durable_index, node.commit) == (index,) * 3
    assert follower.node.log.last_index <= last


def test_a_snapshot_of_a_later_ballot_raises_the_promise() -> None:
    """Seed 4855: an entry above the promise. Whoever has it takes part in nothing below."""
    scene = Scene(3)
    follower = behind(scene)
    ballot = Ballot(follower.node.promised.term + 3, NodeId(2))
    follower.turn(snapshot_at(follower.node.log.last_index + 5, ballot))
    assert follower.node.promised == ballot
    assert follower.node.leader is None
    follower.node.check()
