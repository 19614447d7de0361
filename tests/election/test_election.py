"""What every election must do: with messages lost, servers dead, and bytes from anybody."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.election.api import ElectionContext, ElectionFactory, Nominate, SendElection
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import Ballot, NodeId
from distinv.testing.conformance.electorate import ANSWER_US, TIMING, Electorate

ELECTIONS = [Bully, Ring]
SECOND = 1_000_000

electorate = partial(Electorate, insistent=False)
"""Nobody suspects twice: whatever comes of it is the elections' own doing."""

each_election = pytest.mark.parametrize("factory", ELECTIONS)


@each_election
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_the_highest_that_lives_is_nominated_when_all_suspect_at_once(
    factory: ElectionFactory, count: int
) -> None:
    net = electorate(factory, count + 1)
    net.lead(count + 1)
    net.kill(count + 1)
    net.suspect(net.alive(), count + 1)
    assert net.run_until_nominated(SECOND) == count


@each_election
@pytest.mark.parametrize("starter", [1, 2, 3, 4])
def test_one_that_suspects_is_enough(factory: ElectionFactory, starter: int) -> None:
    net = electorate(factory, 5)
    net.lead(5)
    net.kill(5)
    net.suspect([starter], 5)
    assert net.run_until_nominated(SECOND) == 4


@each_election
def test_the_dead_in_between_are_passed_over(factory: ElectionFactory) -> None:
    net = electorate(factory, 9)
    net.lead(9)
    net.kill(9, 8, 7, 5, 2)
    net.suspect([1, 3, 4], 9)
    assert net.run_until_nominated(2 * SECOND) == 6


@each_election
def test_a_leader_in_office_ends_the_election_everywhere(factory: ElectionFactory) -> None:
    net = electorate(factory, 5, ordains=True)
    net.lead(5)
    net.kill(5)
    net.suspect(net.alive(), 5)
    net.run(2 * SECOND)
    assert net.leader == 4
    assert net.resting()
    assert {each.whom for each in net.nominations} == {4}


@each_election
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_a_live_server_is_nominated_in_bounded_time(factory: ElectionFactory, loss: float) -> None:
    for seed in range(60):
        random = Random(seed)
        count = random.choice([3, 5, 7])
        net = electorate(factory, count, seed=seed, loss=loss)
        net.lead(count)
        net.kill(count)
        dead = random.sample(range(1, count), random.randrange(count // 2))
        net.kill(*dead)
        net.suspect(net.alive(), count, within_us=3 * ANSWER_US)
        assert net.run_until_nominated(3 * SECOND) is not None, f"seed {seed}"


@each_election
def test_with_loss_the_cluster_comes_to_rest_behind_a_leader(factory: ElectionFactory) -> None:
    for seed in range(40):
        net = electorate(factory, 5, seed=seed, loss=0.2, ordains=True)
        net.lead(5)
        net.kill(5)
        net.suspect(net.alive(), 5)
        net.run(5 * SECOND)
        assert net.leader is not None, f"seed {seed}"
        assert net.resting(), f"seed {seed}"


@each_election
def test_a_crash_in_the_middle_only_costs_a_round(factory: ElectionFactory) -> None:
    for seed in range(60):
        random = Random(seed)
        net = electorate(factory, 7, seed=seed, ordains=True)
        net.lead(7)
        net.kill(7)
        net.suspect(net.alive(), 7)
        net.at(random.randrange(2 * ANSWER_US), partial(net.kill, 6))
        net.run(3 * SECOND)
        if net.leader is None:  # it was in office when it died: its followers find out
            net.suspect(net.alive(), 6)
            net.run(6 * SECOND)
        assert net.leader == 5, f"seed {seed}"
        assert net.resting(), f"seed {seed}"


@each_election
def test_one_that_is_nominated_and_never_leads_is_nominated_again_at_a_bounded_rate(
    factory: ElectionFactory,
) -> None:
    net = electorate(factory, 5)
    net.suspect(net.alive(), None)
    net.run(10 * SECOND)
    assert 3 <= len(net.nominations) <= 100
    assert len(net.sends) <= 3_000


@each_election
def test_an_election_against_a_healthy_leader_dies_down(factory: ElectionFactory) -> None:
    """Server 1 has not heard the leader for a while; everybody else has, and it comes back."""
    net = electorate(factory, 5)
    net.lead(5)
    net.call(1, lambda election: election.on_suspect(NodeId(5), net.now))
    net.run(SECOND)
    net.lead(5)
    net.run(5 * SECOND)
    assert net.resting()


@each_election
def test_a_healthy_leader_is_not_voted_against_for_ever_by_those_who_hear_it(
    factory: ElectionFactory,
) -> None:
    """Server 1 goes on suspecting: the others answer, and start nothing of their own."""
    net = electorate(factory, 5)
    net.lead(5)
    net.call(1, lambda election: election.on_suspect(NodeId(5), net.now))
    net.run(20 * SECOND)
    others = [net.machines[node].deadline() for node in net.alive()[1:]]
    net.kill(1)
    net.run(40 * SECOND)
    assert len([due for due in others if due is not None]) <= 4
    assert net.resting()


@each_election
def test_a_replica_takes_no_part(factory: ElectionFactory) -> None:
    context = ElectionContext(NodeId(9), Random(1), TIMING)
    replica = factory(context)
    assert list(replica.on_members((NodeId(1), NodeId(2)), 0)) == []
    assert list(replica.on_suspect(NodeId(1), 0)) == []
    voter = factory(ElectionContext(NodeId(1), Random(1), TIMING))
    list(voter.on_members((NodeId(1), NodeId(9)), 0))
    for action in voter.on_suspect(None, 0):
        if isinstance(action, SendElection):
            assert list(replica.on_message(NodeId(1), action.body, 1)) == []
    assert replica.deadline() is None


@each_election
def test_one_that_is_voted_out_in_the_middle_stops(factory: ElectionFactory) -> None:
    node = factory(ElectionContext(NodeId(1), Random(1), TIMING))
    list(node.on_members((NodeId(1), NodeId(2), NodeId(3)), 0))
    assert list(node.on_suspect(NodeId(3), 0))
    assert list(node.on_members((NodeId(2), NodeId(3)), 1)) == []
    assert node.deadline() is None


@each_election
def test_the_same_seed_gives_the_same_election(factory: ElectionFactory) -> None:
    def play(seed: int) -> list[str]:
        net = electorate(factory, 5, seed=seed, loss=0.2)
        net.suspect(net.alive(), None)
        net.run(2 * SECOND)
        return net.lines

    assert play(3) == play(3)
    assert play(3) != play(4)


def bodies(factory: ElectionFactory) -> list[bytes]:
    """Every body of a real election."""
    net = electorate(factory, 4, seed=5)
    net.suspect(net.alive(), None)
    net.run(SECOND)
    return list(dict.fromkeys(send.body for _, _, send in net.sends))


BODIES: dict[type[Bully] | type[Ring], list[bytes]] = {Bully: bodies(Bully), Ring: bodies(Ring)}


@each_election
@given(data=st.data())
@settings(max_examples=150)
def test_hostile_bytes_never_raise_and_start_nothing_that_does_not_end(
    factory: type[Bully] | type[Ring], data: st.DataObject
) -> None:
    node = factory(ElectionContext(NodeId(2), Random(1), TIMING))
    list(node.on_members((NodeId(1), NodeId(2), NodeId(3)), 0))
    if data.draw(st.booleans()):
        list(node.on_leader(NodeId(3), Ballot(1, 3), 0))
    known = BODIES[factory]
    now = 0
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.integers(0, ANSWER_US))
        source = NodeId(data.draw(st.integers(0, 5)))
        body = data.draw(st.one_of(st.binary(max_size=80), st.sampled_from(known)))
        if data.draw(st.booleans()) and body:
            place = data.draw(st.integers(0, len(body) - 1))
            body = body[:place] + data.draw(st.binary(max_size=3)) + body[place + 1 :]
        answers = list(node.on_message(source, body, now))
        assert len(answers) <= 4
        if source not in (1, 2, 3):
            assert answers == []
        due = node.deadline()
        assert due is None or due <= now + 40 * ANSWER_US
        if due is not None and due <= now:
            list(node.on_deadline(now))


@each_election
def test_repeated_messages_do_not_postpone_the_nomination(
    factory: type[Bully] | type[Ring],
) -> None:
    """A peer that repeats everything it ever heard, as fast as it can, keeps nobody waiting."""
    node = factory(ElectionContext(NodeId(2), Random(1), TIMING))
    list(node.on_members((NodeId(1), NodeId(2), NodeId(3)), 0))
    known = BODIES[factory]
    nominated = [Nominate(NodeId(2))] == [
        action for action in node.on_suspect(NodeId(3), 0) if isinstance(action, Nominate)
    ]
    for now in range(0, 6 * SECOND, ANSWER_US // 4):
        actions = list(node.on_deadline(now))
        for body in known:
            actions.extend(node.on_message(NodeId(3), body, now))
        nominated = nominated or Nominate(NodeId(2)) in actions
    assert nominated
