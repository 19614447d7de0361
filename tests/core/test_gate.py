"""A cluster is upgraded one server after the other: nothing is written that some cannot read."""

from __future__ import annotations

import pytest
from attrs import evolve
from scene import MS, Scene, Server, log_of
from test_changes import QUICK, grown, has_voters

from distinv.core import events
from distinv.entry import KIND_SINCE, Ballot, Entry, EntryKind, NodeId, make_entry
from distinv.errors import UpgradeNeeded
from distinv.wire.messages import Append, HeartbeatAck, Pull, PullReply

A, B, C = NodeId(1), NodeId(2), NodeId(3)
LATER = 250
"""A kind of entry that no release knows."""


@pytest.fixture
def commands_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KIND_SINCE, EntryKind.COMMANDS, 2)


def upgrade(server: Server, protocol: int = 2) -> None:
    server.protocol = protocol
    server.restart()


def upgraded(scene: Scene, *but: int) -> Server:
    """Everybody but some runs the later release, and 1 leads."""
    for server in scene.servers.values():
        if server.id not in but:
            upgrade(server)
    leader = scene.elect(1)
    scene.settle()
    return leader


def withheld(server: Server) -> list[str]:
    return [text for text in server.tells if "entries have to wait" in text]


def test_every_kind_says_since_when_it_exists() -> None:
    assert list(KIND_SINCE) == list(EntryKind)


# --- what a leader writes ---------------------------------------------------------------------


@pytest.mark.usefixtures("commands_are_new")
def test_a_new_kind_waits_until_every_voter_speaks_it() -> None:
    scene = Scene()
    leader = upgraded(scene, 3)
    last = leader.node.log.last_index
    leader.submit(1)
    leader.submit(2)
    scene.run(5_000)
    assert leader.node.log.last_index == last
    assert withheld(leader) == [
        "COMMANDS entries have to wait for servers that are not known to speak protocol 2: s3. "
        "Upgrade or remove them"
    ], "told once, and by name"
    upgrade(scene[3])
    scene.settle()
    assert scene.leader is leader
    assert scene.numbers() == [1, 2], "in the order in which they came"


@pytest.mark.usefixtures("commands_are_new")
def test_a_voter_that_is_away_may_come_back_with_the_old_release() -> None:
    scene = Scene()
    scene[3].crash()
    leader = upgraded(scene, 3)
    leader.submit(1)
    scene.run(5_000)
    assert scene.numbers() == []
    assert len(withheld(leader)) == 1
    upgrade(scene[3])
    scene.settle()
    assert scene.numbers() == [1]


@pytest.mark.usefixtures("commands_are_new")
def test_a_server_that_is_put_back_holds_up_what_it_cannot_read() -> None:
    scene = Scene()
    leader = upgraded(scene)
    leader.submit(1)
    scene.settle()
    last = leader.node.log.last_index
    upgrade(scene[3], 1)
    scene.run(1_000)
    leader.submit(2)
    scene.run(2_000)
    assert leader.node.log.last_index == last


@pytest.mark.usefixtures("commands_are_new")
def test_a_learner_holds_it_up_for_as_long_as_it_is_served() -> None:
    timing = evolve(QUICK, promote_after_us=3_600_000 * MS)
    scene = Scene(3, learners=1, timing=timing)
    leader = upgraded(scene, 4)
    assert scene.run(10_000, lambda: scene[4].node.log.last_index > 0)
    leader.submit(1)
    scene.run(3_000)
    assert scene.numbers() == []
    assert "s4" in withheld(leader)[0]
    scene[4].crash()
    assert scene.run(timing.link_idle_us // MS + 1_000, lambda: scene.numbers() == [1])


@pytest.mark.usefixtures("commands_are_new")
def test_a_learner_of_the_old_release_holds_it_up_from_the_moment_it_joins() -> None:
    scene = Scene(3, learners=1, timing=evolve(QUICK, promote_after_us=3_600_000 * MS))
    scene[4].crash()
    leader = upgraded(scene, 4)
    leader.submit(1)
    assert scene.run(2_000, lambda: scene.numbers() == [1])
    scene.lose = lambda source, to, message: isinstance(message, HeartbeatAck) and source == 4
    scene[4].start()
    assert scene.run(10_000, lambda: NodeId(4) in leader.node.role.peers)  # type: ignore[union-attr]
    leader.submit(2)
    scene.run(1_000)
    assert scene.numbers() == [1], "it has not said what it speaks"


def test_a_change_of_voters_waits_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = grown(3, 2)
    monkeypatch.setitem(KIND_SINCE, EntryKind.VOTERS, 2)
    for id in (2, 3, 4, 5):
        upgrade(scene[id])
    leader = scene[1]
    scene.run(1_000)
    leader.order(7, 4, votes=True)
    leader.order(8, 5, votes=True)
    scene.run(3_000)
    assert has_voters(scene, 1, 2, 3)
    (told,) = withheld(leader)
    assert "protocol 2: s1. " in told, "it does not speak it itself"
    upgrade(leader)
    leader = scene.settle()
    scene.run(1_000)
    leader.order(7, 4, votes=True)
    leader.order(8, 5, votes=True)
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))


# --- who meets what it does not know ----------------------------------------------------------


def entry_of_later_release(after: Server, ballot: Ballot) -> Entry:
    last = after.node.log.last
    return make_entry(last, ballot, after.node.log.last_time_us, LATER, b"from the future")


def expect_stop(server: Server, index: int, event: events.Event) -> None:
    """The step ends in the one sentence, and nothing of it leaves the server."""
    sent, durable = len(server.scene.sent), list(server.durable)
    with pytest.raises(UpgradeNeeded) as caught:
        server.step(event)
    assert str(caught.value) == (
        f"entry {index} is of a kind that this release does not know: the cluster runs a later "
        "one; upgrade this server"
    )
    assert [each for each in server.scene.sent[sent:] if each[0] == server.id] == []
    assert server.writes_under_way == 0
    server.crash()
    assert list(server.durable) == durable


def test_a_follower_stops_at_an_entry_of_a_later_release() -> None:
    scene = Scene()
    leader = scene.elect(1)
    leader.submit(1)
    scene.settle()
    node = leader.node
    entry = entry_of_later_release(scene[2], node.leader_ballot)
    message = Append(node.leader_ballot, node.log.last, (entry,), entry.index, 0)
    expect_stop(scene[2], entry.index, events.Received(A, message))
    scene[2].start()
    leader.submit(2)
    scene.settle()
    assert scene[2].applied == leader.node.log.last_index, "and has lost nothing"


def test_a_candidate_stops_at_an_entry_of_a_later_release() -> None:
    scene = Scene()
    scene.elect(1)
    scene.settle()
    scene[1].crash()
    later = entry_of_later_release(scene[3], scene[3].node.leader_ballot)
    scene[3].node.append(make_entry(scene[3].node.log.last, later.ballot, later.time_us, 0, b""))
    scene[3].turn()
    held = scene.hold(lambda message: isinstance(message, Pull))
    scene[2].node.become_candidate("the scene wants it", scene[2].node.leader_ballot)
    scene[2].turn()
    assert scene.run(2_000, lambda: bool(held)), "3 has more than 2"
    pull = held[0].message
    reply = PullReply(pull.ballot, pull.after, (later,), True, 0, 0)
    expect_stop(scene[2], later.index, events.Received(C, reply))


def test_a_server_does_not_start_on_a_log_of_a_later_release() -> None:
    entries = log_of([A, B, C], (1, A))
    last = entries[-1]
    entries.append(make_entry(last.position, last.ballot, last.time_us, LATER, b""))
    with pytest.raises(UpgradeNeeded, match=f"entry {last.index + 1} is of a kind that this"):
        Scene(logs={1: entries})
