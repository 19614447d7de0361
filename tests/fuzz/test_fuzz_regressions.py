"""What fuzzing has found. Each test is the smallest input that did it, and what it did."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from distinv import config
from distinv.core.events import Standing
from distinv.core.progress import Mode
from distinv.entry import (
    NO_BALLOT,
    TERM_JUMP_MAX,
    Ballot,
    EntryKind,
    NodeId,
    Voter,
    VoterSet,
    make_entry,
)
from distinv.errors import InvalidRequest, StorageError
from distinv.inventory import calls, queries
from distinv.inventory.machine import StateMachine
from distinv.testing.fuzzing.bounds import endpoint_sizes
from distinv.testing.fuzzing.copies import forged, head_of, worked_copy
from distinv.testing.fuzzing.inbox import Insider
from distinv.testing.fuzzing.scene import Server
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.frame import encode_announce, encode_unordered
from distinv.wire.messages import (
    Append,
    AppendMismatch,
    BallotRefused,
    Beacon,
    BirthAnswer,
    BirthOffer,
    EndSession,
    Order,
    PreVoteReply,
    Promise,
    PullReply,
    Query,
    ReadIndex,
    Request,
    SnapshotPull,
)
from distinv.wire.seal import PlainSeal

LEADER, FOLLOWER, BLANK = 4, 1, 3
"""Seeds in which the victim is one, see `inbox._ROLES`."""


class Scene:
    def __init__(self, seed: int) -> None:
        self.insider = Insider(seed)
        self.victim, self.net = self.insider.victim, self.insider.net
        self.stranger, self.voter = self.insider._stranger, self.insider._voter
        self.engine, self.node = self.victim.engine, self.victim.engine.node
        self.front: Any = self.engine.front

    def say(self, *messages: Any, voter: bool = False, boot: int | None = None) -> None:
        """One datagram with these messages."""
        who = self.voter if voter else self.stranger
        chunks = b"".join(encode_unordered(encode(message)) for message in messages)
        boot = self.victim.boot if boot is None else boot
        self.engine.receive(who.forge(boot, chunks), who.address, self.net.now)

    def turn(self, duration_us: int = 5_000) -> None:
        self.victim.wake(self.net.now)
        self.net.run(duration_us)


def test_an_announcement_of_what_never_comes_costs_few_questions() -> None:
    """67 bytes made a process ask 15,888 times a second, for as long as the link lived."""
    a, b = endpoint(1), endpoint(2)
    now = 1
    b.connect(NodeId(1), ("10.0.0.1", 1), now)
    for _ in range(4):
        now += 100
        for _, data in b.flush(now):
            a.receive_untrusted(data, ("10.0.0.2", 2), now)
        for _, data in a.flush(now):
            b.receive_untrusted(data, ("10.0.0.1", 1), now)
    a.receive_untrusted(b._datagram(a._boot, encode_announce(1, 1_024)), ("10.0.0.2", 2), now)
    sent, end = 0, now + 1_000_000
    while now < end:
        sent += len(a.flush(now))
        now = max(now + 20, a.deadline() or end)
        a.on_deadline(now)
    assert 10 < sent < 200


def endpoint(node: int) -> Endpoint:
    return Endpoint(
        self_id=NodeId(node),
        boot=100 + node,
        seal=PlainSeal(),
        random=Random(node),
        timing=config.Timing(),
        limits=config.Limits(),
        payload_bytes=1_200,
    )


@pytest.mark.parametrize("payload", [b"", b"\x91\x01", b"\x93\xa2\xff\xfe\x01\x90"])
def test_a_voter_set_that_cannot_be_read_is_not_taken_into_the_log(payload: bytes) -> None:
    """The follower failed, and would have failed again with that log after every restart."""
    scene = Scene(FOLLOWER)
    node, ballot = scene.node, Ballot(scene.node.promised.term + 1, scene.voter.id)
    last = node.log.last
    entry = make_entry(last, ballot, 1, EntryKind.VOTERS, payload)
    scene.say(Append(ballot, last, (entry,), 0, 0), voter=True)
    assert node.log.last == last
    node.check()


def test_a_leader_that_takes_entries_back_in_its_own_ballot() -> None:
    """The follower went on to count as verified what was not in its log any more."""
    scene = Scene(FOLLOWER)
    node, ballot = scene.node, Ballot(scene.node.promised.term + 1, scene.voter.id)
    last = node.log.last
    first = make_entry(last, ballot, 1, EntryKind.NOOP, b"")
    second = make_entry(first.position, ballot, 1, EntryKind.NOOP, b"")
    other = make_entry(last, ballot, 2, EntryKind.NOOP, b"")
    scene.say(Append(ballot, last, (first, second), 0, 0), voter=True)
    scene.say(Append(ballot, last, (other,), 0, 0), voter=True)
    assert node.log.last == other.position
    node.check()


def test_pulled_entries_beyond_the_target_are_dropped() -> None:
    """IndexError in a candidate that pulled one entry and was sent only the one after it."""
    scene = Scene(FOLLOWER)
    node = scene.node
    for host in list(scene.net.hosts.values()):
        if isinstance(host, Server) and host is not scene.victim:
            host.leave()
    assert scene.net.run(5_000_000, lambda: node.standing is Standing.CANDIDATE)
    role: Any = node.role
    scene.say(PreVoteReply(role._number, True, NO_BALLOT, 0), voter=True)
    scene.turn()
    last, ballot = node.log.last, role.ballot
    target = make_entry(last, Ballot(last.ballot.term, 2**63 - 1), 1, EntryKind.NOOP, b"")
    beyond = make_entry(target.position, target.ballot, 1, EntryKind.NOOP, b"")
    voters = node.membership.describe(node.commit)
    scene.say(Promise(ballot, target.position, 0, node.clock_us, voters), voter=True)
    assert role._target == target.position
    scene.say(PullReply(ballot, last, (beyond,), True, 0, 0), voter=True)
    assert node.log.last == last
    node.check()


def test_requests_of_no_session_leave_nothing_behind() -> None:
    """One number of a session that never was let any lower one wait: without bound, for ever."""
    scene = Scene(LEADER)
    scene.say(Request(999_999, 10**12, 1, 1, b""))
    for number in range(1, 1_000):
        scene.say(Request(999_999, number, 1, 1, b""))
    assert scene.front.pending <= 2
    scene.turn(1_000_000)
    assert (len(scene.front._waiting), len(scene.front._in_log)) == (0, 0)


def test_what_the_log_has_decided_is_not_remembered_as_under_way() -> None:
    """An entry of every session was kept for as long as the leader led."""
    scene = Scene(LEADER)
    for session in range(1_000):
        scene.say(Request(10**6 + session, 7, 1, 1, b""))
        if session % 100 == 99:
            scene.turn()
    scene.turn(1_000_000)
    assert scene.insider.works()
    assert not scene.front._in_log


def test_sessions_to_end_are_pending_commands() -> None:
    scene = Scene(LEADER)
    for session in range(2_000):
        scene.say(EndSession(10**6 + session), EndSession(10**6 + session))
    limit = scene.net.config.limits.pending_commands
    assert scene.front.pending <= limit
    assert len(scene.front._submit) <= limit
    scene.turn(1_000_000)
    assert not scene.front._closing


def test_malformed_messages_do_not_fill_the_log_file() -> None:
    """One datagram of 60 kB gave 20,000 lines; without a key, to anybody."""
    scene = Scene(LEADER)
    for boot in (scene.victim.boot, 0):
        data = scene.stranger.forge(boot, encode_unordered(b"") * 20_000)
        scene.engine.receive(data, scene.stranger.address, scene.net.now)
    assert len(scene.engine._lines) <= 1


def test_clusters_of_one_name_do_not_fill_the_log_file() -> None:
    scene = Scene(LEADER)
    lines = len(scene.engine._lines)
    for cluster in range(2_000):
        beacon = Beacon("shop", 10**6 + cluster, "other", 0, None, NO_BALLOT, 0, 0, ())
        scene.say(beacon, boot=0)
    assert len(scene.engine._lines) - lines <= scene.net.config.limits.servers_max + 2


def test_a_blank_server_accepts_no_more_than_it_can_refuse() -> None:
    """Two of three voters that always refuse made its refusals grow, and each is written anew."""
    scene = Scene(BLANK)
    ids = sorted((scene.victim.id, scene.stranger.id, scene.voter.id))
    for cluster in range(1, 100):
        voters = tuple(Voter(node, "x") for node in ids)
        scene.say(BirthOffer(VoterSet("shop", cluster, voters)))
        for voter in (True, False):
            scene.say(BirthAnswer(cluster, False, None), voter=voter)
        scene.turn(500)
    assert scene.node.birth is not None
    assert len(scene.node.birth._refused) <= scene.net.config.limits.births_refused


def test_questions_for_a_read_index_are_bounded() -> None:
    scene = Scene(LEADER)
    for number in range(2_000):
        scene.say(ReadIndex(number))
    assert len(scene.node.role._questions) <= scene.net.config.limits.pending_reads  # type: ignore[union-attr]


def test_reads_of_a_future_that_never_comes_are_forgotten_with_their_client() -> None:
    """They filled the table for good, and everybody's reads with a `min_seq` went unanswered."""
    scene = Scene(LEADER)
    for number in range(1_000):
        scene.say(Query(number, False, 2**62, b"x"))
    assert len(scene.front._behind) == scene.net.config.limits.pending_reads
    refused = [type(message).__name__ for _, message in scene.front._out]
    assert refused.count("QueryFailed") == 1_000 - len(scene.front._behind)
    scene.turn(60_000_000)
    assert not scene.front._behind


def test_a_datagram_of_questions_for_a_snapshot_costs_one_piece() -> None:
    """Each of 13 bytes was answered with 64 kB."""
    scene = Scene(LEADER)
    limits = scene.net.config.limits
    scene.say(SnapshotPull(b"", 0, 0))
    scene.turn()
    scene.say(*[SnapshotPull(b"", 0, 0)] * 500)
    kept = endpoint_sizes(scene.engine.endpoint)["link bytes"]
    assert limits.snapshot_piece_bytes < kept < 2 * limits.snapshot_piece_bytes


def test_questions_for_a_newer_snapshot_do_not_copy_the_store_each_time() -> None:
    """Each took the snapshot away from whoever was getting it, and had the store copied again."""
    scene = Scene(LEADER)
    made, maker = 0, scene.engine._upkeep.desk._make

    def counted() -> Any:
        nonlocal made
        made += 1
        return maker()

    scene.engine._upkeep.desk._make = counted
    rest_us = scene.net.config.timing.snapshot_rest_us
    for _ in range(50):
        scene.say(SnapshotPull(b"", 0, scene.victim.machine.position.index - 1))
        scene.say(SnapshotPull(b"", 0, 2**63 - 1), voter=True)
        scene.turn(rest_us // 10)
        assert scene.insider.works()
    assert 1 < made <= 6 + scene.net.now // rest_us


def test_orders_are_bounded() -> None:
    scene = Scene(LEADER)
    limits, role = scene.net.config.limits, scene.node.role
    for number in range(1_000):
        for what in ("promote", "remove", "leave", "transfer", "no such order"):
            scene.say(Order(number, what, scene.stranger.id), Order(number, what, number))
        changes: Any = getattr(role, "changes", None)
        assert len(scene.engine._orders._waiting) <= limits.servers_max
        assert len(changes._orders) <= limits.servers_max
        assert len(changes._transfers) <= limits.servers_max
    scene.turn(10_000_000)
    assert not scene.engine._orders._waiting
    scene.engine.endpoint.check()


LAST = "SELECT body FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)"
FORGED = {
    "UPDATE sessions SET body = 7": "a row of sessions",
    "UPDATE sessions SET body = x'c1'": "a row of sessions",
    "UPDATE items SET attributes = x'c1'": "attributes of an item",
    "UPDATE items SET scale = 9999999999": "a row of items",
    "UPDATE items SET name = x'41'": "a row of items",
    "UPDATE locations SET stocked = 9223372036854775807": "a row of locations",
    "UPDATE levels SET on_hand = 'many'": "a row of levels",
    "UPDATE levels SET reserved = on_hand + 1": "a row of levels",
    "UPDATE levels SET version = -1": "a row of levels",
    "UPDATE keys SET time_us = 'long ago'": "a row of keys",
    "UPDATE ledger SET body = 'words'": "a row of ledger",
}


@pytest.mark.parametrize("change", FORGED)
def test_a_snapshot_whose_sums_are_right_and_whose_rows_are_not(change: str) -> None:
    """It was installed, and the server failed on it at once, or after each restart."""
    data = forged(worked_copy(), lambda database: database.execute(change) and None)
    with pytest.raises(StorageError, match=f"wrong: a row of|{FORGED[change]}"):
        StateMachine.from_snapshot(data, head_of(data))


@pytest.mark.parametrize("state", [{"index": 2**52}, {"seq": 2**63 - 1}, {"time_us": 2**63 - 1}])
def test_a_snapshot_behind_which_nobody_can_go_on(state: dict[str, int]) -> None:
    """The next command raised OverflowError."""
    data = forged(worked_copy(), lambda database: None, **state)
    with pytest.raises(StorageError, match="out of range"):
        StateMachine.from_snapshot(data, head_of(data))


def test_a_snapshot_with_a_schema_that_cannot_be_named() -> None:
    """UnicodeDecodeError, from SQLite's own words about it."""
    data = worked_copy().replace(b"CREATE TABLE sessions", b"CREATE TABLE sess\xff\xfens")
    with pytest.raises(StorageError, match="damaged"):
        StateMachine.from_snapshot(data, head_of(data))


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET body = x'c1'",
        "UPDATE levels SET chain = 999",
        f"UPDATE ledger SET body = ({LAST})",
    ],
)
def test_a_ledger_that_is_wrong_is_noticed_by_who_reads_it(change: str) -> None:
    """AssertionError, DecodeError, or a walk in a ring without end."""
    data = forged(worked_copy(), lambda database: database.execute(change) and None)
    machine = StateMachine.from_snapshot(data, head_of(data))
    with pytest.raises(StorageError, match="damaged"):
        machine.query(calls.ledger(sku="apple", limit=1_000).encode())


@pytest.mark.parametrize("answer", [queries.Number(1, 2), queries.Levels(1, ())])
def test_an_answer_to_another_question_is_refused(answer: queries.Answer) -> None:
    """AttributeError and IndexError reached the caller."""
    with pytest.raises(InvalidRequest):
        calls.level("apple").value(queries.encode_answer(answer))


def test_a_leader_lured_upwards_stays_within_reach_of_the_others() -> None:
    """It went one term further than a server that had promised its ballot would follow."""
    scene = Scene(LEADER)
    ballot = scene.node.promised
    out_of_reach = Ballot(ballot.term + 2 * TERM_JUMP_MAX, scene.voter.id)
    scene.say(BallotRefused(ballot, out_of_reach, 0), voter=True)
    assert scene.node.promised.term == ballot.term + TERM_JUMP_MAX


def test_two_servers_with_two_histories_do_not_argue_without_end() -> None:
    """A follower that calls committed what the leader does not have was asked again at once:
    3,612 exchanges in 0.9 s, for ever."""
    scene = Scene(LEADER)
    node = scene.node
    mismatch = AppendMismatch(node.promised, node.log.last_index, node.log.last_index)
    scene.engine.endpoint.flush(scene.net.now)
    for _ in range(50):
        scene.say(mismatch, voter=True)
    progress = node.role.progress_of(scene.voter.id)  # type: ignore[union-attr]
    assert progress is not None
    assert progress.mode is Mode.PROBE
