"""Birth: however the offers and answers of blank servers interleave, one cluster comes of them."""

from __future__ import annotations

from random import Random

import pytest

from distinv.config import Limits, Timing
from distinv.core.birth import Answer, Birth, BirthAction, Exists, Offer, Remember, odd_voters
from distinv.entry import NO_BALLOT, NodeId, Voter, VoterSet
from distinv.storage.api import BirthRecord
from distinv.wire.messages import Beacon, BirthAnswer

BLANK = BirthRecord(None, ())
LIMITS = Limits()


def birth(
    node: int,
    *,
    expect: int = 3,
    record: BirthRecord = BLANK,
    limits: Limits = LIMITS,
    seed: float = 0,
) -> Birth:
    return Birth(
        NodeId(node),
        f"s{node}",
        "shop",
        expect,
        record,
        timing=Timing(),
        limits=limits,
        random=Random(f"{node} {seed}"),
        now=0,
    )


def beacon(node: int, *, cluster_id: int = 0, expect: int = 3) -> Beacon:
    return Beacon("shop", cluster_id, f"s{node}", 0, None, NO_BALLOT, 0, expect, ())


def proposal(cluster_id: int, *nodes: int) -> VoterSet:
    return VoterSet("shop", cluster_id, tuple(Voter(node, f"s{node}") for node in nodes))


def test_a_server_that_lost_its_disk_counts_once() -> None:
    """It comes back under a new id, from where it was; the two that are there are not three."""
    machine = birth(1, expect=3)
    here, there = ("10.0.0.2", 4747), ("10.0.0.2", 4748)
    machine.on_beacon(NodeId(2), beacon(2), 0, here)
    machine.on_beacon(NodeId(7), beacon(7), 1_000, here)
    assert machine.sees == (7,)
    at = machine.deadline()
    assert not any(isinstance(each, Remember) for each in machine.on_deadline(at)), "waits for one"
    machine.on_beacon(NodeId(3), beacon(3), at, there)
    machine.on_deadline(at)
    assert machine.accepted is not None
    assert machine.accepted.ids == (1, 3, 7)


def test_servers_of_one_host_are_several() -> None:
    machine = birth(1, expect=3)
    for port in (1, 2):
        machine.on_beacon(NodeId(port + 1), beacon(port + 1), 0, ("10.0.0.2", port))
    assert machine.sees == (2, 3)


def answers(actions: list[BirthAction]) -> list[BirthAnswer]:
    return [action.message for action in actions if isinstance(action, Answer)]


class Nursery:
    """Some blank servers whose messages arrive in any order, late, or not at all."""

    def __init__(self, count: int, seed: int) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.machines = {node: birth(node, expect=count, seed=seed) for node in range(1, count + 1)}
        self.disks: dict[int, BirthRecord] = dict.fromkeys(self.machines, BLANK)
        self.born: dict[int, VoterSet] = {}
        self.waiting: list[tuple[int, int, object]] = []
        self.now = 0

    def do(self, node: int, actions: list[BirthAction]) -> None:
        durable = False
        for action in actions:
            if isinstance(action, Remember):
                self.disks[node] = action.record
                durable = True
            elif isinstance(action, (Offer, Answer)):
                self.waiting.append((node, int(action.to), action.message))
            elif isinstance(action, Exists):
                self.born[node] = action.proposal
        if durable and node not in self.born:
            self.do(node, self.machines[node].on_durable())

    def step(self) -> None:
        self.now += self.random.randrange(20_000)
        node = self.random.choice(list(self.machines))
        machine, chance = self.machines[node], self.random.random()
        if chance < 0.01 and node not in self.born:
            self.machines[node] = birth(
                node, expect=len(self.machines), record=self.disks[node], seed=self.random.random()
            )  # a crash: what was remembered is back, nothing else
        elif chance < 0.4:
            other = self.random.choice(list(self.machines))
            if other != node and node not in self.born and other not in self.born:
                seen = beacon(other, expect=len(self.machines))
                self.do(node, machine.on_beacon(NodeId(other), seen, self.now))
        elif chance < 0.6:
            if node not in self.born:
                self.do(node, machine.on_deadline(self.now))
        elif self.waiting:
            source, target, message = self.waiting.pop(self.random.randrange(len(self.waiting)))
            if self.random.random() < 0.1 or target in self.born:
                return
            there = self.machines[target]
            if isinstance(message, BirthAnswer):
                self.do(target, there.on_answer(NodeId(source), message, self.now))
            else:
                offered = message.proposal  # type: ignore[attr-defined]
                self.do(target, there.on_offer(NodeId(source), offered, self.now))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_never_two_clusters_and_sooner_or_later_one(count: int) -> None:
    for seed in range(40):
        nursery = Nursery(count, seed)
        for _ in range(10_000):
            nursery.step()
            if nursery.born:
                break
        assert nursery.born, f"seed {seed}: no cluster after 10,000 steps"
        for _ in range(300):
            nursery.step()
        ids = {each.cluster_id for each in nursery.born.values()}
        assert len(ids) == 1, f"seed {seed}: {nursery.born}"
        assert len(next(iter(nursery.born.values())).voters) == odd_voters(count, 5)


def test_one_proposal_is_accepted_and_every_other_refused_for_ever() -> None:
    machine = birth(1)
    first, second = proposal(10, 1, 2, 3), proposal(20, 1, 2, 3)
    assert answers(machine.on_offer(NodeId(2), first, 0)) == [BirthAnswer(10, True, None)]
    assert answers(machine.on_offer(NodeId(3), second, 0)) == [BirthAnswer(20, False, first)]
    again = birth(1, record=machine.record())
    assert answers(again.on_offer(NodeId(2), first, 0)) == [BirthAnswer(10, True, None)]
    assert answers(again.on_offer(NodeId(3), second, 0)) == [BirthAnswer(20, False, first)]


def test_an_acceptance_is_dropped_only_when_it_cannot_win_any_more() -> None:
    machine = birth(1)
    machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0)
    machine.on_answer(NodeId(2), BirthAnswer(10, False, None), 0)
    assert machine.accepted is not None, "the third may still accept"
    machine.on_answer(NodeId(3), BirthAnswer(10, False, None), 0)
    assert machine.accepted is None
    assert answers(machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0)) == [
        BirthAnswer(10, False, None)
    ]


RIVALS = {
    "one like it": (proposal(20, 1, 2, 3), True),
    "of another name": (VoterSet("other", 20, proposal(20, 1, 2, 3).voters), False),
    "without this server": (proposal(20, 2, 3, 4), False),
    "refused before": (proposal(5, 1, 2, 3), False),
    "that nobody would propose": (proposal(20, 3, 2, 1), False),
    "of another size than expected": (proposal(20, 1), False),
}


def betrayed(machine: Birth, rival: VoterSet | None) -> None:
    """It accepts proposal 10, and both others say that they refuse it for ever."""
    machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0)
    machine.on_answer(NodeId(2), BirthAnswer(10, False, None), 0)
    machine.on_answer(NodeId(3), BirthAnswer(10, False, rival), 0)


@pytest.mark.parametrize("name", RIVALS)
def test_the_proposal_that_the_others_preferred_is_accepted_if_it_may_be(name: str) -> None:
    rival, usable = RIVALS[name]
    machine = birth(1, record=BirthRecord(None, (5,)))
    betrayed(machine, rival)
    assert machine.accepted == (rival if usable else None)
    assert machine.record().refused == (5, 10)


def test_who_joins_an_existing_cluster_refuses_every_proposal() -> None:
    machine = birth(1)
    machine.on_beacon(NodeId(9), beacon(9, cluster_id=77), 0)
    actions = machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0)
    assert answers(actions) == [BirthAnswer(10, False, None)]
    assert machine.record() == BirthRecord(None, (10,))


def test_only_so_many_proposals_are_refused_and_further_ones_ignored() -> None:
    machine = birth(1, limits=Limits(births_refused=2))
    machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0)
    for cluster_id in (20, 30, 40):
        last = machine.on_offer(NodeId(3), proposal(cluster_id, 1, 2, 3), 0)
    assert last == [], "what is not remembered is not promised"
    assert machine.record().refused == (20, 30)


def test_who_may_refuse_no_more_accepts_nothing_either() -> None:
    """It could not refuse for ever what it would have to give up."""
    machine = birth(1, record=BirthRecord(None, (5, 6)), limits=Limits(births_refused=2))
    assert machine.on_offer(NodeId(2), proposal(10, 1, 2, 3), 0) == []
    assert machine.accepted is None


def test_blank_servers_are_remembered_up_to_a_bound() -> None:
    machine = birth(1, expect=0, limits=Limits(servers_max=2))
    for node in (4, 3, 2, 4):
        machine.on_beacon(NodeId(node), beacon(node, expect=0), 0)
    assert machine.sees == (3, 4)


def test_a_sole_voter_that_crashed_after_accepting_finishes() -> None:
    """Simulator seed 86: its acceptance was durable, the cluster's first entry was not."""
    accepted = BirthRecord(proposal(10, 1), ())
    actions = birth(1, expect=1, record=accepted).on_deadline(0)
    assert [action for action in actions if isinstance(action, Exists)]


def test_a_blank_server_that_hears_a_cluster_joins_it_and_proposes_nothing() -> None:
    machine = birth(1, expect=0)
    machine.on_beacon(NodeId(9), beacon(9, cluster_id=77), 0)
    assert machine.cluster_id == 77
    for now in range(0, 20_000_000, 250_000):
        assert not [a for a in machine.on_deadline(now) if isinstance(a, (Remember, Exists))]


def test_what_nobody_would_propose_is_not_accepted() -> None:
    machine = birth(1)
    strange = [
        proposal(10, 1, 2),
        proposal(10, 3, 2, 1),
        proposal(10, 2, 3, 4),
        proposal(0, 1, 2, 3),
        proposal(10, 1),
    ]
    for each in strange:
        machine.on_offer(NodeId(2), each, 0)
        assert machine.accepted is None


def test_voters_are_odd() -> None:
    assert [odd_voters(count, 5) for count in range(1, 9)] == [1, 1, 3, 3, 5, 5, 5, 5]
