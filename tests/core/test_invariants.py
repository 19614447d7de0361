"""The invariants of docs/protocol.md, each by the schedule that would break it.

The witness of every scene checks them all the time; here each is driven into its corner.
"""

from __future__ import annotations

from random import Random

import pytest
from scene import CLUSTER_ID, MS, Scene, Server, command, log_of

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.events import InvariantBroken
from distinv.core.node import Node
from distinv.election.api import ElectionContext
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    TERM_JUMP_MAX,
    Ballot,
    EntryKind,
    NodeId,
    Position,
    make_entry,
)
from distinv.storage.api import EntryRecord, PromiseRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PrepareRefused,
    PreVote,
    Promise,
)

THREE = (1, 2, 3)
A, B, C = NodeId(1), NodeId(2), NodeId(3)


def prepare(term: int, node: int, ordered_by: Ballot = NO_BALLOT) -> Prepare:
    return Prepare(Ballot(term, NodeId(node)), ordered_by, 1)


def led(count: int = 3, *, learners: int = 0) -> tuple[Scene, Server]:
    """Server 1 leads, and everybody has what it has."""
    scene = Scene(count, learners=learners)
    leader = scene.elect(1)
    scene.settle()
    return scene, leader


def campaign(server: Server, ordered_by: Ballot) -> None:
    server.node.become_candidate("the scene wants it", ordered_by)
    server.turn()


# --- 1: one owner, durable before it is used, never used again --------------------------------


def test_1_the_own_promise_is_durable_before_prepare_leaves() -> None:
    scene = Scene()
    scene[1].stalled = True
    campaign(scene[1], Ballot(1, B))
    scene.run(300)
    assert scene.messages(Prepare, 1) == []
    scene[1].stalled = False
    scene[1].sync()
    assert {message.ballot for message in scene.messages(Prepare, 1)} == {Ballot(1, A)}


@pytest.mark.parametrize("kept", [0, 1])
def test_1_a_restarted_candidate_goes_above_every_ballot_in_its_record(kept: int) -> None:
    """The trap: it leads again in the ballot in which it crashed before its own sync."""
    scene = Scene(sync_us=5 * MS)
    scene.cut((2, 1), (3, 1))
    for _ in range(4):
        server = scene[1]
        campaign(server, Ballot(1, B))
        scene.run(20 * kept + 1)
        server.crash(kept)
        server.start()
    ballots = [message.ballot for message in scene.messages(Prepare, 1, 2)]
    assert sorted(set(ballots)) == list(dict.fromkeys(ballots))
    assert all(server.node.promised.node == A for server in (scene[1],) if kept)


def test_1_a_leader_that_crashes_before_its_own_sync_leads_in_another_ballot() -> None:
    scene = Scene()
    leader = scene.elect(1)
    first = leader.node.leader_ballot
    leader.stalled = True
    leader.submit(1)
    scene.run(5)
    leader.crash()
    leader.stalled = False
    leader.start()
    asks = (PreVote, Prepare)
    scene.lose = lambda source, to, message: source != 1 and isinstance(message, asks)
    again = scene.elect(1)  # nobody else gets anywhere meanwhile
    assert again.node.leader_ballot > first


def test_1_nobody_prepares_for_another() -> None:
    scene = Scene()
    scene[1].turn(events.Received(B, prepare(9, 3)))
    scene.run(10)
    assert scene[1].node.promised < Ballot(9, A)
    assert scene.messages(Promise, 1) == []


def test_1_nobody_leads_in_the_ballot_of_another() -> None:
    scene = Scene()
    theirs = Ballot(9, C)
    entry = make_entry(scene[1].node.log.last, theirs, 0, EntryKind.NOOP, b"")
    previous = scene[1].node.log.last
    scene[1].turn(events.Received(B, Append(theirs, previous, (entry,), 0, 0)))
    scene[1].turn(events.Received(B, Heartbeat(theirs, 0, 0, 0)))
    assert scene[1].node.leader is None
    assert scene[1].node.log.last_index == 1


@pytest.mark.parametrize("ballot", [Ballot(5, A), Ballot(1, B)])
def test_1_nobody_leads_in_a_ballot_it_has_not_promised_itself(ballot: Ballot) -> None:
    scene = Scene()
    scene[1].turn(events.Received(B, prepare(1, 2)))
    with pytest.raises(InvariantBroken, match="cannot lead"):
        scene[1].node.become_leader(ballot)


def test_1_no_prepare_is_answered_in_a_ballot_that_has_appended() -> None:
    scene, leader = led()
    before = len(scene.messages(Promise, 2))
    scene[2].turn(events.Received(A, Prepare(leader.node.leader_ballot, NO_BALLOT, 1)))
    scene.run(10)
    assert len(scene.messages(Promise, 2)) == before
    scene[2].restart()
    scene[2].turn(events.Received(A, Prepare(leader.node.leader_ballot, NO_BALLOT, 1)))
    scene.run(1)
    assert len(scene.messages(Promise, 2)) == before


def test_1_a_term_out_of_the_blue_is_not_followed_but_approached() -> None:
    scene = Scene()
    far = Ballot(3 * TERM_JUMP_MAX, B)
    for step in (1, 2):
        scene[1].turn(events.Received(B, Heartbeat(far, 0, 0, 0)))
        assert scene[1].node.promised == Ballot(step * TERM_JUMP_MAX, 0), "promised to nobody"
        assert scene[1].node.leader is None
    scene[1].turn(events.Received(B, Heartbeat(far, 0, 0, 0)))
    assert scene[1].node.promised == far
    assert scene[1].node.leader == B


def test_1_a_term_out_of_the_blue_does_not_move_who_hears_a_leader() -> None:
    scene = Scene()
    scene[1].turn(events.Received(B, Heartbeat(Ballot(1, B), 0, 0, 0)))
    scene[1].turn(events.Received(C, prepare(TERM_JUMP_MAX + 2, 3)))
    assert scene[1].node.promised == Ballot(1, B)


# --- 2: promises ------------------------------------------------------------------------------


def test_2_a_promise_is_durable_before_it_is_sent() -> None:
    scene = Scene()
    scene[2].stalled = True
    scene[2].turn(events.Received(A, prepare(1, 1)))
    scene[2].turn(events.Received(A, prepare(1, 1)))
    scene.run(50)
    assert scene.messages(Promise, 2) == []
    scene[2].stalled = False
    scene[2].sync()
    assert len(scene.messages(Promise, 2)) == 2


def test_2_repeated_answers_are_identical() -> None:
    scene = Scene()
    for _ in range(3):
        scene[2].turn(events.Received(A, prepare(1, 1)))
        scene.run(30)
    answers = scene.messages(Promise, 2)
    assert len(answers) == 3
    assert len(set(map(repr, answers))) == 1, "the clock included"


@pytest.mark.parametrize("ballot", [Ballot(4, A), Ballot(5, C)])
def test_2_a_promise_never_goes_back(ballot: Ballot) -> None:
    scene = Scene()
    scene[2].turn(events.Received(C, prepare(5, 3)))
    with pytest.raises(InvariantBroken, match="is not above"):
        scene[2].node.raise_promise(ballot)


def test_2_a_promise_survives_a_crash() -> None:
    scene = Scene()
    scene[2].turn(events.Received(C, prepare(5, 3)))
    scene.run(10)
    assert scene.messages(Promise, 2)
    scene[2].restart()
    scene[2].turn(events.Received(A, prepare(4, 1)))
    assert scene.messages(PrepareRefused, 2) == [
        PrepareRefused(Ballot(4, A), Ballot(5, C), 0),
    ]


def test_2_only_an_echo_of_the_exact_ballot_counts() -> None:
    scene = Scene()
    scene.isolate(1)
    server = scene[1]
    campaign(server, Ballot(1, B))
    scene.run(5)
    assert server.campaigns
    for ballot in (Ballot(0, A), Ballot(1, B), Ballot(2, A)):
        server.turn(events.Received(B, Promise(ballot, ORIGIN, 0, 0, ())))
    assert server.campaigns
    server.turn(events.Received(B, Promise(Ballot(1, A), ORIGIN, 0, 0, ())))
    assert server.leads


def test_2_an_append_above_the_promise_raises_it_in_the_same_write() -> None:
    """The trap: the epoch is recorded before the log, or after it, and a crash falls between."""
    scene = Scene()
    scene.isolate(2)
    server, ballot = scene[2], Ballot(7, A)
    previous = server.node.log.last
    entry = make_entry(previous, ballot, 0, EntryKind.NOOP, b"")
    server.stalled = True
    server.turn(events.Received(A, Append(ballot, previous, (entry,), 0, 0)))
    ((_, _, records),) = server._staged
    assert PromiseRecord(ballot) in records
    assert EntryRecord(entry) in records
    scene.run(20)
    assert scene.messages(AppendAck, 2) == []


# --- 3: what "more up to date" means ----------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "chosen"),
    [
        ([(1, 1)], [(1, 1), (1, 1)], "theirs"),
        ([(1, 1), (1, 1), (1, 1)], [(2, 3)], "theirs"),
        ([(2, 3)], [(1, 1), (1, 1), (1, 1)], "mine"),
        ([(1, 1), (1, 1)], [(1, 1)], "mine"),
    ],
)
def test_3_the_last_ballot_decides_and_then_the_length(
    mine: list[tuple[int, int]], theirs: list[tuple[int, int]], chosen: str
) -> None:
    logs = {1: log_of(THREE, *mine), 2: log_of(THREE, *theirs), 3: log_of(THREE)}
    scene = Scene(logs=logs, promised=dict.fromkeys(THREE, Ballot(8, B)))
    scene.isolate(3)
    scene.elect(1)
    expected = logs[1 if chosen == "mine" else 2]
    assert scene.committed[: len(expected)] == expected


def test_3_a_high_promise_makes_no_log_more_up_to_date() -> None:
    logs = {1: log_of(THREE, (1, 1), (1, 1)), 2: log_of(THREE, (1, 1)), 3: log_of(THREE)}
    scene = Scene(logs=logs, promised={1: Ballot(1, A), 2: Ballot(50, B), 3: Ballot(50, B)})
    scene.isolate(3)
    scene.elect(2)
    assert scene.committed[:3] == logs[1]
    assert scene[2].node.promised > Ballot(50, B)


# --- 4: nothing counts before the own no-op ---------------------------------------------------


def test_4_an_entry_of_an_older_ballot_is_not_committed_by_counting() -> None:
    """Figure 8 of the Raft paper: a majority holds entry 2 of ballot 1.1, yet it can be lost."""
    old, other = [(1, 1)], [(2, 3)]
    logs = {1: log_of(THREE, *old), 2: log_of(THREE, *old), 3: log_of(THREE, *other)}
    scene = Scene(logs=logs, promised={1: Ballot(2, C), 2: Ballot(2, C), 3: Ballot(2, C)})
    scene.isolate(3)
    first = scene[1]
    noops = scene.hold(lambda message: isinstance(message, Append) and bool(message.entries))
    campaign(first, Ballot(2, C))
    assert scene.run(100, lambda: first.leads)
    # Server 2 has verified everything but the no-op, which is still under way.
    probe = Append(first.node.leader_ballot, log_of(THREE, *old)[-1].position, (), 1, 0)
    scene[2].turn(events.Received(A, probe))
    scene.run(10)
    assert any(ack.verified == 2 for ack in scene.messages(AppendAck, 2))
    assert first.node.commit == 1
    # And indeed: server 3 may lead next, and its entry 2 is another one.
    first.crash()
    scene.heal()
    noops.clear()
    scene.release(noops)
    scene.settle()
    assert scene.committed[1].ballot == Ballot(2, C)


def test_4_nothing_is_appended_for_clients_before_it_serves() -> None:
    scene = Scene()
    acks = scene.hold(lambda message: isinstance(message, (AppendAck, HeartbeatAck)))
    server = scene[1]
    campaign(server, Ballot(1, B))
    assert scene.run(100, lambda: server.leads)
    server.submit(1)
    scene.run(5)
    assert server.node.log.last_index == 2, "only its no-op"
    scene.release(acks)
    assert scene.run(100, lambda: scene.numbers() == [1])


# --- 5: who counts ----------------------------------------------------------------------------


def test_5_learners_do_not_count() -> None:
    scene, leader = led(learners=2)
    scene.isolate(2)
    scene.isolate(3)
    scene.cuts.difference_update({(NodeId(2), NodeId(3)), (NodeId(3), NodeId(2))})
    leader.submit(1)
    leader.read(1)
    scene.run(400)
    assert scene.numbers() == []
    assert leader.ready == {}
    scene.run(1_000)
    assert not leader.leads, "nor do they keep a leader in office"


def test_5_the_set_is_the_logs_and_not_who_was_seen() -> None:
    """Two of five voters, alone with each other for long, stay two of five."""
    scene, _ = led(5)
    for id in (3, 4, 5):
        scene[id].crash()
    scene.run(30_000)
    assert scene.leader is None
    scene[5].start()
    scene.settle()


# --- 6: acknowledgements and the followers' commit --------------------------------------------


def stale_tail() -> tuple[Scene, Ballot]:
    """Server 2 has two entries that its leader, server 1, does not have."""
    logs = {
        1: log_of(THREE, (2, 1)),
        2: log_of(THREE, (1, 2), (1, 2)),
        3: log_of(THREE, (2, 1)),
    }
    scene = Scene(logs=logs, promised=dict.fromkeys(THREE, Ballot(2, A)))
    scene.cut((1, 2))
    ballot = scene.elect(1).node.leader_ballot
    return scene, ballot


def test_6_a_stale_tail_is_neither_acknowledged_nor_committed_after_an_empty_heartbeat() -> None:
    scene, ballot = stale_tail()
    server = scene[2]
    server.turn(events.Received(A, Heartbeat(ballot, 3, 3, 0)))
    scene.run(5)
    (ack,) = scene.messages(HeartbeatAck, 2)
    assert ack.verified == 0
    assert server.node.commit == 1
    scene.heal()
    scene.settle()
    assert [entry.ballot for entry in server.durable] == [NO_BALLOT, Ballot(2, A), ballot]


def test_6_an_acknowledgement_covers_what_was_sent_and_not_the_own_log() -> None:
    scene, ballot = stale_tail()
    server = scene[2]
    server.turn(events.Received(A, Append(ballot, log_of(THREE)[0].position, (), 3, 0)))
    scene.run(5)
    assert [ack.verified for ack in scene.messages(AppendAck, 2)] == [1]
    assert server.node.commit == 1


def test_6_it_starts_at_nothing_in_each_ballot() -> None:
    scene, _ = led()
    assert scene[3].node.role.verified == 2  # type: ignore[union-attr]
    ballot = Ballot(9, B)
    scene[3].turn(events.Received(B, Heartbeat(ballot, 2, 2, 0)))
    scene.run(5)
    assert scene.messages(HeartbeatAck, 3, 2)[-1].verified == 0


def test_6_what_is_not_durable_is_not_acknowledged() -> None:
    scene, leader = led()
    scene[3].stalled = True
    leader.submit(1)
    scene.run(100)
    assert max(ack.verified for ack in scene.messages(HeartbeatAck, 3)) == 2
    assert max(ack.verified for ack in scene.messages(AppendAck, 3)) == 2


# --- 7: delivered is not applied --------------------------------------------------------------


def test_7_what_is_committed_elsewhere_but_not_durable_here_is_not_applied() -> None:
    scene, leader = led()
    scene[3].stalled = True
    leader.submit(1)
    scene.run(100)
    assert scene[2].applied == 3
    assert scene[3].node.log.last_index == 3
    assert scene[3].applied == 2
    scene[3].stalled = False
    scene[3].sync()
    scene.run(100)
    assert scene[3].applied == 3


def test_7_nor_does_a_leader_apply_what_only_the_others_have() -> None:
    scene, leader = led()
    leader.stalled = True
    leader.submit(1)
    scene.run(100)
    assert leader.node.commit == 3, "two of three disks have it"
    assert leader.applied == 2
    leader.stalled = False
    leader.sync()
    scene.run(10)
    assert leader.applied == 3


def test_7_a_store_that_is_ahead_of_its_journal_is_not_served_from() -> None:
    """Somebody brought back an older journal: what was applied can be proved no more."""
    timing = Timing()
    with pytest.raises(InvariantBroken, match="store is at 5, the journal ends at 0"):
        Node(
            self_id=A,
            server_name="s1",
            cluster_name="shop",
            expect=3,
            recovered=MemoryStorage().recover(),
            applied=5,
            election_label="scene",
            election=Silent(ElectionContext(A, Random(1), timing)),
            timing=timing,
            limits=Limits(),
            random=Random(1),
            now=0,
        )


# --- 8: truncation ----------------------------------------------------------------------------


def test_8_entries_that_match_are_not_truncated() -> None:
    """A late Append, with less than the follower has got since, must cost it nothing."""
    scene = Scene()
    leader = scene.elect(1)
    for number in range(1, 4):
        leader.submit(number)
    scene.settle()
    server, ballot = scene[2], leader.node.leader_ballot
    entries = tuple(leader.durable[1:3])
    previous = leader.durable[0].position
    server.turn(events.Received(A, Append(ballot, previous, entries, 2, 0)))
    assert server.node.log.last == leader.node.log.last
    assert server.node.role.verified == leader.node.log.last_index > 3  # type: ignore[union-attr]


def test_8_a_conflict_at_or_below_commit_stops_the_server() -> None:
    scene = Scene()
    leader = scene.elect(1)
    leader.submit(1)
    scene.settle()
    server = scene[2]
    ballot = Ballot(9, C)
    forged = make_entry(server.durable[1].position, ballot, 0, EntryKind.NOOP, b"forged")
    append = Append(ballot, server.durable[1].position, (forged,), 3, 0)
    with pytest.raises(InvariantBroken, match="3 is committed"):
        server.turn(events.Received(C, append))


def test_8_entries_that_do_not_follow_by_hash_are_dropped() -> None:
    scene, leader = led()
    server, ballot = scene[2], leader.node.leader_ballot
    last = server.node.log.last
    forged = make_entry(Position(last.index, last.ballot, bytes(16)), ballot, 0, 0, b"")
    server.turn(events.Received(A, Append(ballot, last, (forged,), 3, 0)))
    assert server.node.log.last == last
    assert any("do not follow by hash" in line for line in server.tells)


def test_8_a_voter_set_that_cannot_be_read_is_not_taken_into_the_log() -> None:
    """It would count from the moment it is appended."""
    scene, leader = led()
    server, ballot = scene[2], leader.node.leader_ballot
    last = server.node.log.last
    entry = make_entry(last, ballot, 0, EntryKind.VOTERS, b"no voter set")
    server.turn(events.Received(A, Append(ballot, last, (entry,), 3, 0)))
    assert server.node.log.last == last


# --- 9 and 10: one history --------------------------------------------------------------------


def test_9_unknown_history_is_asked_for_and_not_guessed() -> None:
    scene = Scene()
    server = scene[2]
    strange = Position(5, Ballot(1, A), bytes(range(16)))
    server.turn(events.Received(A, Append(Ballot(1, A), strange, (), 5, 0)))
    assert scene.messages(AppendMismatch, 2) == [AppendMismatch(Ballot(1, A), 5, 1)]
    assert server.node.commit == 1


def test_10_what_was_acknowledged_survives_any_change_of_leader() -> None:
    scene = Scene(5)
    number = 0
    for id in (1, 2, 3, 4, 5, 1):
        leader = scene.elect(id)
        number += 1
        leader.submit(number)
        assert scene.run(200, lambda last=number: last in scene.numbers())
        leader.crash()
        scene.run(50)
        leader.start()
    scene.settle()
    assert scene.numbers() == list(range(1, number + 1))


# --- 11: a disk that fails --------------------------------------------------------------------


def test_11_nothing_goes_on_as_if_a_write_had_happened() -> None:
    """A write that never ends: no promise, no acknowledgement, nothing applied, no leadership."""
    scene, _ = led()
    for server in scene.servers.values():
        server.stalled = True
    scene[1].turn(events.Submit(command(1)))
    sent = len(scene.sent)
    scene.run(10_000)
    after = [message for _, _, message in scene.sent[sent:]]
    assert not [message for message in after if isinstance(message, (Prepare, Promise))]
    assert scene.numbers() == []
    assert scene.leader is None
    assert scene.servers[A].cluster_id == CLUSTER_ID
