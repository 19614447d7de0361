"""The known traps about who votes, one scene each: who joins, who returns, who is stale.

Changes of the voter set are not built; their traps are listed in tests/test_traps.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scene import Scene, log_of, voter_set

from distinv.config import Limits
from distinv.election.api import ElectionContext
from distinv.entry import Ballot, EntryKind, NodeId, encode_voters, make_entry
from distinv.testing.simulator.hostile import Silent
from distinv.wire.codec import encode
from distinv.wire.endpoint import PAYLOAD_BYTES_MIN
from distinv.wire.frame import CHUNK_BYTES, HEADER_BYTES
from distinv.wire.messages import NominateHint, Promise, Pull, VotersInPlay
from distinv.wire.seal import KeySeal


def test_a_joining_server_stops_the_cluster() -> None:
    """It is a learner first: its slow disk and its silence count for nothing."""
    scene = Scene(1, learners=3)
    leader = scene.settle()
    for number, server in enumerate(scene.servers.values()):
        if server is not leader:
            server.stalled = True
            leader.submit(number)
            scene.run(20)
            assert number in scene.numbers()
    scene.run(5_000)
    assert scene.leader is leader


def test_two_voters_one_dies() -> None:
    """There is no safe answer for two voters, so there are none: one votes, one learns."""
    scene = Scene(2, born=False, expect=2)
    voter = scene.settle()
    assert voter.node.voters() == (voter.id,)
    learner = next(server for server in scene.servers.values() if server is not voter)
    voter.submit(1)
    scene.settle()
    learner.crash()
    voter.submit(2)
    assert scene.run(100, lambda: scene.numbers() == [1, 2]), "the replica's death costs nothing"
    learner.start()
    scene.settle()
    voter.crash()
    scene.run(20_000)
    assert scene.leader is None, "nobody makes up a quorum of one"
    assert not learner.campaigns
    voter.start()
    assert scene.settle() is voter
    assert scene.numbers() == [1, 2]


def test_a_server_returns_with_an_empty_disk_under_its_old_id() -> None:
    """An id is used once: what comes back is somebody else (4), a learner, and its new disk
    vouches for nothing. One voter that remembers is needed besides the one that is left."""
    scene = Scene(3, learners=1)
    for server in (scene[2], scene[3]):
        server.crash()
    scene.run(5_000)
    assert scene.leader is None, "1 and the blank 4 are no quorum"
    scene[2].start()
    leader = scene.settle()
    assert leader.id in (1, 2)
    assert leader.node.voters() == (1, 2, 3)
    leader.submit(1)
    scene.settle()
    assert scene[4].applied == leader.applied, "but it gets the log"


@pytest.mark.parametrize("forfeit_entries", [5, 10_000])
@pytest.mark.parametrize("missing", [1, 30])
def test_the_nominees_log_is_stale(missing: int, forfeit_entries: int) -> None:
    """It pulls a small gap, and leaves the office to the fresher one when the gap is large."""
    scene = Scene(limits=Limits(forfeit_entries=forfeit_entries))
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(3)
    for number in range(missing):
        leader.submit(number)
        scene.run(5)
    scene.run(400)
    leader.crash()
    scene.heal()
    scene.run(50)
    scene[3].node.become_candidate("the scene wants it", scene[3].node.leader_ballot)
    scene[3].turn()
    assert scene.run(5_000, lambda: scene.leader is not None)
    assert scene.leader is not None
    forfeits = missing > forfeit_entries
    assert scene.leader.id == (2 if forfeits else 3)
    assert bool(scene.messages(NominateHint, 3, 2)) == forfeits
    assert bool(scene.messages(Pull, 3)) == (not forfeits)
    scene.settle()
    assert scene.numbers() == [*range(missing)]


def test_a_promise_too_large_for_a_datagram() -> None:
    """It says positions: however long the logs are, and though an old set and a new one of the
    most voters there may be were both in play, it fits the smallest datagram there may be."""
    scene = Scene(5)
    leader = scene.elect(5)
    for number in range(200):
        leader.submit(number)
        scene.run(2)
    scene.settle()
    scene.elect(1)
    promise = scene.messages(Promise, to=1)[-1]
    assert promise.last.index > 200
    high = (1 << 63) - 1
    ballot = Ballot(high, high)
    voters = VotersInPlay(high, ballot, (high,) * Limits().voters_max, False)
    largest = Promise(ballot, promise.last._replace(index=high), high, high, (voters, voters))
    room_bytes = PAYLOAD_BYTES_MIN - HEADER_BYTES - KeySeal(bytes(32)).overhead_bytes - CHUNK_BYTES
    assert len(encode(promise)) < len(encode(largest)) <= room_bytes


class Listening(Silent):
    """An election that only listens."""

    def __init__(self, context: ElectionContext) -> None:
        super().__init__(context)
        self.voters: list[NodeId] = []

    def on_members(self, voters: Sequence[NodeId], now: int) -> tuple[()]:
        self.voters = list(voters)
        return ()


def test_an_election_goes_on_with_voters_that_were_truncated() -> None:
    """It was told of a voter set when it was appended, and not when it was dropped again."""
    elections: list[Listening] = []

    def listening(context: ElectionContext) -> Listening:
        elections.append(Listening(context))
        return elections[-1]

    ids = [NodeId(number) for number in (1, 2, 3)]
    log = log_of(ids)
    voters = encode_voters(voter_set([*ids, NodeId(8), NodeId(9)]))
    change = make_entry(log[-1].position, Ballot(1, ids[2]), 0, EntryKind.VOTERS, voters)
    scene = Scene(election=listening, logs={3: [*log, change]})
    scene[3].crash()
    scene.elect(1)
    scene[1].submit(1)
    scene.settle()
    scene[3].start()
    late = elections[-1]
    assert late.voters == [1, 2, 3, 8, 9]
    scene.settle()
    assert late.voters == [1, 2, 3]
