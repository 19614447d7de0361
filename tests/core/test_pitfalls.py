"""The known traps of such protocols, one scene each; names say the trap.

Those about who votes are in test_pitfalls_voters.py. tests/test_traps.py names a test for every
trap, wherever it is.
"""

from __future__ import annotations

import pytest
from scene import MS, Scene, Server, command

from distinv.core import events, votes
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import Ballot, NodeId
from distinv.testing.simulator.hostile import AlwaysMe, Silent
from distinv.wire.messages import AppendAck, BallotRefused, Heartbeat, Prepare, Promise

A, B, C = NodeId(1), NodeId(2), NodeId(3)
ELECTIONS: dict[str, ElectionFactory] = {"bully": Bully, "ring": Ring, "none": Silent}


def leaderships(scene: Scene) -> int:
    return len(scene.witness.leaders)


def promise_in_secret(scene: Scene, id: int, term: int) -> None:
    """`id` prepares a high ballot of its own while it is cut off."""
    scene.isolate(id)
    server = scene[id]
    votes.on_prepare(server.node, A, Prepare(Ballot(1, A), Ballot(0, A), 1))
    server.node.become_candidate("the scene wants it", above=Ballot(term - 1, NodeId(0)))
    server.node.role._prepare()  # type: ignore[union-attr]
    server.turn()
    scene.run(1_000)
    assert server.node.promised == Ballot(term, NodeId(id))


# --- elections --------------------------------------------------------------------------------


@pytest.mark.parametrize("latency_ms", [0, 10, 40])
def test_two_nominators_out_ballot_each_other_for_ever(latency_ms: int) -> None:
    scene = Scene(election=AlwaysMe, latency_us=latency_ms * MS + 100, sync_us=40 * MS)
    assert scene.run(10_000, lambda: scene.leader is not None)
    count = leaderships(scene)
    scene.run(10_000)
    assert leaderships(scene) == count, "and then it stays"


@pytest.mark.parametrize("name", ELECTIONS)
def test_a_returning_bully_deposes_a_healthy_leader(name: str) -> None:
    scene = Scene(election=ELECTIONS[name])
    scene[3].crash()
    leader = scene.settle()
    scene[3].start()
    scene.run(10_000)
    assert scene.leader is leader
    assert leaderships(scene) == 1


@pytest.mark.parametrize("name", ELECTIONS)
def test_a_server_that_sends_but_cannot_hear_keeps_deposing_the_leader(name: str) -> None:
    scene = Scene(election=ELECTIONS[name])
    leader = scene.settle()
    deaf = next(server for server in scene.servers.values() if server is not leader)
    scene.cut(*((other, deaf.id) for other in scene.servers if other != deaf.id))
    scene.run(20_000)
    assert scene.leader is leader
    assert leaderships(scene) == 1


@pytest.mark.parametrize("name", ELECTIONS)
def test_a_server_that_hears_only_some_keeps_deposing_the_leader(name: str) -> None:
    """It hears the other follower, and not the leader: the follower's pre-vote says no."""
    scene = Scene(election=ELECTIONS[name])
    leader = scene.settle()
    one, other = (server for server in scene.servers.values() if server is not leader)
    scene.cut((leader.id, one.id), (one.id, leader.id))
    scene.run(20_000)
    assert scene.leader is leader
    assert leaderships(scene) == 1
    scene.heal()
    scene.settle()
    assert scene.leader is leader
    assert other.node.leader == leader.id


def test_a_leader_that_cannot_hear_stays_in_office() -> None:
    """Its heartbeats go out, so nobody else stands up: it has to step down itself."""
    scene = Scene()
    leader = scene.settle()
    scene.cut(*((other, leader.id) for other in scene.servers if other != leader.id))
    assert scene.run(1_000, lambda: not leader.leads)
    assert scene.run(3_000, lambda: scene.leader is not None)


def test_a_leader_that_cannot_be_heard_stays_in_office() -> None:
    scene = Scene()
    leader = scene.settle()
    scene.cut(*((leader.id, other) for other in scene.servers if other != leader.id))
    assert scene.run(3_000, lambda: scene.leader not in (None, leader))
    scene.run(1_000)
    assert not leader.leads


def test_a_leader_without_a_quorum_goes_on_believing_in_itself() -> None:
    scene = Scene(5)
    leader = scene.settle()
    others = [server.id for server in scene.servers.values() if server is not leader]
    for id in others[1:]:
        scene.cut((leader.id, id), (id, leader.id), (others[0], id), (id, others[0]))
    assert scene.run(1_000, lambda: not leader.leads)
    assert scene.run(3_000, lambda: scene.leader is not None)
    assert scene.leader is not None
    assert scene.leader.id in others[1:]


@pytest.mark.parametrize("behind", [False, True])
def test_only_one_server_reaches_a_majority_and_another_leads(behind: bool) -> None:
    """Quorum loss and constrained election (Omni-Paxos; Ng, Haridi, Carbone, EuroSys 2023): all
    are cut off from one another but for a hub, which may have missed the last entries."""
    scene = Scene(5)
    leader = scene.elect(5)
    scene.settle()
    hub = 1
    if behind:
        scene.isolate(hub)
        for number in range(20):
            leader.submit(number)
            scene.run(10)
        scene.heal()
    ids = list(scene.servers)
    scene.cut(
        *((one, other) for one in ids for other in ids if one != other and hub not in (one, other))
    )
    assert scene.run(6_000, lambda: scene[hub].serves)
    scene[hub].submit(100)
    assert scene.run(100, lambda: scene.numbers()[-1:] == [100])
    assert len(scene.numbers()) == (21 if behind else 1)


def test_the_winner_is_already_gone() -> None:
    """Everybody has promised, nobody leads, and nobody is suspected: somebody must stand up."""
    scene = Scene()
    scene[1].node.become_candidate("the scene wants it", Ballot(1, B))
    scene[1].turn()
    assert scene.run(100, lambda: len(scene.messages(Promise, to=1)) == 2)
    scene[1].crash()
    assert scene.run(5_000, lambda: scene.leader is not None)


def test_the_winner_is_gone_before_its_first_entry() -> None:
    scene = Scene()
    scene.lose = lambda source, to, message: source == 1 and not isinstance(message, Prepare)
    scene[1].node.become_candidate("the scene wants it", Ballot(1, B))
    scene[1].turn()
    assert scene.run(100, lambda: scene[1].leads)
    scene[1].crash()
    assert scene.run(5_000, lambda: scene.leader is not None)


def test_no_leader_and_nobody_electing() -> None:
    """The plugin never says a word; the leader dies as often as there is one."""
    scene = Scene(5, election=Silent)
    for _ in range(6):
        leader = scene.settle()
        leader.crash()
        scene.run(700)
        leader.start()


def test_all_start_at_the_same_moment_after_a_power_cut() -> None:
    for seed in range(10):
        scene = Scene(5, seed=seed)
        scene.settle().submit(1)
        scene.settle()
        for server in scene.servers.values():
            server.crash()
        for server in scene.servers.values():
            server.start()
        scene.settle()
        assert scene.numbers() == [1]


# --- a candidate cut off after its promise ----------------------------------------------------


def test_a_candidate_cut_off_after_a_high_promise_refuses_the_healthy_leader_for_ever() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    promise_in_secret(scene, 3, term=9)
    leader.submit(1)
    scene.heal()
    assert scene.run(200, lambda: scene[3].node.leader == 1)
    assert scene.run(500, lambda: leader.serves), "the same leader, above it"
    assert leader.node.leader_ballot > Ballot(9, C)
    scene.settle()
    assert scene.numbers() == [1]


def test_such_a_refusal_is_followed_at_most_once_in_a_while() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    prepared = len(scene.messages(Prepare, 1))
    for step in range(100):
        ballot = leader.node.promised
        high = Ballot(ballot.term + 1 + step, C)
        leader.turn(events.Received(C, BallotRefused(ballot, high, 0)))
        scene.run(10)
    ballots = {message.ballot for message in scene.messages(Prepare, 1)[prepared:]}
    assert 1 <= len(ballots) <= 4


def test_a_refusal_by_one_that_follows_another_ends_a_leadership() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    ballot = leader.node.leader_ballot
    leader.turn(events.Received(B, BallotRefused(ballot, Ballot(9, C), C)))
    assert not leader.leads
    assert leader.node.leader is None


def test_a_refusal_in_another_ballot_says_nothing() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.turn(events.Received(B, BallotRefused(Ballot(0, A), Ballot(9, C), C)))
    assert leader.serves


def test_a_refusal_from_outside_the_set_moves_nobody() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    refusal = BallotRefused(leader.node.leader_ballot, Ballot(9, C), 0)
    leader.turn(events.Received(NodeId(77), refusal))
    assert leader.serves


def test_who_ordered_a_hand_over_does_not_prepare_against_its_heir() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.hold(lambda message: isinstance(message, Prepare))
    leader.turn(events.Transfer(C))
    scene.run(20)
    prepared = len(scene.messages(Prepare, 1))
    refusal = BallotRefused(leader.node.leader_ballot, scene[3].node.promised, 0)
    leader.turn(events.Received(C, refusal))
    scene.run(20)
    assert len(scene.messages(Prepare, 1)) == prepared
    assert leader.leads


# --- disks ------------------------------------------------------------------------------------


def test_leader_alive_and_disk_dead_heartbeats_go_on_and_the_cluster_hangs() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.stalled = True
    leader.submit(1)
    assert scene.run(1_200, lambda: not leader.leads), "the bound is a second"
    beats = len(scene.messages(Heartbeat, 1))
    assert scene.run(2_000, lambda: scene.leader is not None)
    assert len(scene.messages(Heartbeat, 1)) == beats
    assert scene.leader is not None
    scene.leader.submit(2)
    assert scene.run(100, lambda: scene.numbers() == [1, 2])
    scene.run(20_000)
    assert not leader.leads, "nor does it come back while its disk is dead"
    leader.stalled = False
    leader.sync()
    scene.settle()


@pytest.mark.parametrize("count", [1, 3])
def test_leader_alive_and_disk_dead_while_it_answers_reads(count: int) -> None:
    """Every round of reads beats, and once put off the look at the disk (simulator, seed 510)."""
    scene = Scene(count)
    leader = scene.elect(1)
    scene.settle()
    leader.stalled = True
    leader.submit(1)
    for ticket in range(60):
        if leader.leads:
            leader.read(ticket)
        scene.run(20)
    assert not leader.leads


def test_a_leader_does_not_live_on_followers_whose_disks_are_dead() -> None:
    """It hears a quorum that decides nothing, and keeps the others from electing one that does
    (simulator, seed 6420 of that time): a dead disk gives no answer to a heartbeat."""
    scene = Scene(5)
    leader = scene.elect(5)
    scene.settle()
    scene.cut((5, 1), (1, 5), (5, 2), (2, 5))
    scene[4].stalled = True
    leader.submit(1)
    assert scene.run(8_000, lambda: any(scene[number].serves for number in (1, 2, 3)))
    assert scene.leader is not None
    scene.leader.submit(2)
    assert scene.run(500, lambda: scene.numbers()[-1:] == [2])


def test_a_disk_that_is_only_slow_costs_no_leadership() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    for server in scene.servers.values():
        server.sync_us = 800 * MS
    for number in range(10):
        leader.submit(number)
        scene.run(900)
    assert scene.leader is leader


def test_a_sole_voter_with_a_dead_disk_serves_again_when_it_lives() -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    leader.stalled = True
    leader.submit(1)
    scene.run(5_000)
    assert scene.leader is None
    leader.stalled = False
    leader.sync()
    scene.settle()
    assert scene.numbers() == [1]


@pytest.mark.parametrize("kept", [0, 1])
def test_the_epoch_is_recorded_before_the_log_is_durable(kept: int) -> None:
    """A server that follows a later ballot for the first time by an Append: after a power cut its
    disk has the promise and the entries, or neither, and it acknowledged neither before."""
    scene = Scene()
    scene.elect(1)
    scene.settle()
    scene.isolate(3)
    scene.elect(2)
    scene[3].stalled = True
    scene[3].turn()
    before = len(scene[3].durable)
    acknowledged = len(scene.messages(AppendAck, 3, 2))
    scene.lose = lambda source, to, message: isinstance(message, Heartbeat)
    scene.cuts.clear()
    assert scene.run(100, lambda: scene[3].node.leader == 2)
    scene.run(5)
    assert len(scene.messages(AppendAck, 3, 2)) == acknowledged
    scene[3].crash(kept)
    promised, entries = scene[3].durable_promise, scene[3].durable
    assert (promised.node, len(entries) > before) == ((2, True) if kept else (1, False))
    scene.lose = lambda *_: False
    scene[3].stalled = False
    scene[3].start()
    scene.settle()


# --- time -------------------------------------------------------------------------------------


def sleep(scene: Scene, server: Server, ms: int) -> None:
    """The process stands still: it takes no turn, and what arrives waits."""
    server.batch_us = ms * MS
    server.late_us = ms * MS
    server.deliver(events.EndTurn())
    scene.run(ms)
    server.batch_us = server.late_us = 0


def test_a_pause_of_the_event_loop_looks_like_a_dead_peer() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    for _ in range(3):
        sleep(scene, scene[3], 3_000)
        assert not scene[3].campaigns
        scene.run(300)
    assert scene.leader is leader
    assert leaderships(scene) == 1
    assert not any("suspecting" in line for line in scene[3].tells)


def test_a_leader_that_slept_leads_on_if_nobody_else_does() -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    sleep(scene, leader, 3_000)
    scene.run(100)
    assert leader.serves


def test_a_leader_that_slept_through_an_election_serves_nobody() -> None:
    """No clock lease: however fresh its last round was, another leader has written since."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.read(1)
    scene.run(10)
    leader.batch_us = leader.late_us = 5_000 * MS
    leader.deliver(events.EndTurn())
    assert scene.run(3_000, lambda: scene.leader not in (None, leader))
    heir = scene.leader
    assert heir is not None
    heir.submit(1)
    scene.run(50)
    assert scene.numbers() == [1]
    leader.batch_us = leader.late_us = 0
    leader.read(2)
    leader.turn(events.Submit(command(2)))
    scene.run(2_000)
    assert 2 not in leader.ready
    assert scene.numbers() == [1]


@pytest.mark.parametrize("late_ms", [60, 250])
def test_slow_machines_never_have_a_leader(late_ms: int) -> None:
    """Each late turn once excused the silent leader anew and put the own campaign off again."""
    scene = Scene()
    leader = scene.settle()
    for server in scene.servers.values():
        server.late_us = late_ms * MS
    scene.run(500)
    leader.crash()
    assert scene.run(15_000, lambda: scene.leader is not None)


def test_a_slow_leader_that_cannot_hear_leads_for_ever() -> None:
    """Each late turn once excused everybody's silence, so it never missed its quorum."""
    scene = Scene()
    leader = scene.settle()
    leader.late_us = 60 * MS
    scene.cut(*((other, leader.id) for other in scene.servers if other != leader.id))
    assert scene.run(5_000, lambda: not leader.leads)


def test_a_wrong_clock_moves_no_stamp() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.submit(1)
    scene.run(50)
    before = scene.committed[-1].time_us
    assert before > 0
    leader.skew_us = 3_600_000 * MS
    scene.run(100)
    leader.submit(2)
    scene.run(50)
    assert scene.committed[-1].time_us < before + 60_000 * MS


def test_time_in_the_log_never_goes_back() -> None:
    scene = Scene()
    for id, skew_ms in ((1, 3_000), (2, -1_000), (3, 0), (1, 0)):
        scene[id].skew_us = skew_ms * MS
        leader = scene.elect(id)
        scene.run(100)
        leader.submit(id)
        scene.run(50)
    times = [entry.time_us for entry in scene.committed]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ELECTIONS)
def test_failover_is_quick(name: str) -> None:
    """Not a promise, but a change that makes it much slower should be noticed."""
    scene = Scene(election=ELECTIONS[name])
    scene.settle().crash()
    began = scene.now
    assert scene.run(2_500, lambda: scene.leader is not None)
    if name != "none":
        assert scene.now - began < 900 * MS


# --- slow is not dead -------------------------------------------------------------------------


@pytest.mark.parametrize("sync_ms", [700, 950])
def test_slow_disks_of_followers_cost_no_leader(sync_ms: int) -> None:
    """Each write waits for the sync before it: with that counted, 950 ms looked like a stall."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[2].sync_us = scene[3].sync_us = sync_ms * MS
    for number in range(1, 1_001):
        leader.submit(number)
        scene.run(10)
        assert scene.leader is leader
    assert leaderships(scene) == 1
    assert scene.run(5_000, lambda: scene.numbers() == list(range(1, 1_001)))


@pytest.mark.parametrize("seed", range(6))
def test_a_pause_of_all_machines_is_no_silence_of_a_disk(seed: int) -> None:
    """The leader woke with a write under way, and found it older than a disk may take."""
    scene = Scene(seed=seed, sync_us=60 * MS)
    leader = scene.elect(1)
    scene.settle()
    leader.submit(1)
    scene.run(2)
    assert leader.writes_under_way
    scene.now += 1_300 * MS
    scene.run(3_000)
    assert scene.leader is leader
    assert leaderships(scene) == 1
