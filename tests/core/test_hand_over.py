"""A leader gives its office away: by order, to a higher id, to a better clock; or keeps it."""

from __future__ import annotations

import pytest
from scene import MS, Scene

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.events import OrderAnswered
from distinv.entry import Ballot, NodeId
from distinv.wire.messages import Prepare, PrepareRefused, PreVote, TransferOrder

A, B, C = NodeId(1), NodeId(2), NodeId(3)


def test_a_hand_over_is_quick_and_loses_nothing() -> None:
    scene = Scene()
    leader = scene.elect(1)
    asked = len(scene.messages(PreVote))
    leader.submit(1)
    leader.turn(events.Transfer(C))
    leader.submit(2)
    assert scene.run(50, lambda: scene[3].serves)
    scene.settle()
    assert len(scene.messages(PreVote)) == asked, "the order stands in for it"
    undone = [each.number for each in leader.not_appended]  # type: ignore[union-attr]
    assert sorted(scene.numbers() + undone) == [1, 2]


def test_without_a_target_the_one_that_has_most_is_chosen() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[2].stalled = True
    leader.submit(1)
    scene.run(50)
    leader.turn(events.Transfer(None))
    assert scene.run(50, lambda: scene[3].serves)


def test_who_orders_a_hand_over_is_answered_when_somebody_else_leads() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.transfer(7, 1)
    assert leader.answers[7] == OrderAnswered(7, True, ""), "so it is already"
    leader.transfer(8, 9)
    assert "has no vote, and cannot lead: promote it first" in leader.answers[8].detail
    scene[2].transfer(9, 1)
    assert scene[2].answers[9] == OrderAnswered(9, False, "not_leader")
    leader.transfer(10, 3)
    assert 10 not in leader.answers
    assert scene.run(500, lambda: scene[3].serves)
    assert leader.answers[10] == OrderAnswered(10, True, "")


def test_an_order_for_another_heir_waits_until_the_first_has_had_its_time() -> None:
    """Both were told that it was done, and one of them led."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.transfer(7, 2)
    leader.transfer(8, 3)
    assert leader.answers[8] == OrderAnswered(8, False, "not_yet")
    assert scene.run(500, lambda: scene[2].serves)
    assert leader.answers[7] == OrderAnswered(7, True, "")


def test_a_leader_that_is_cut_off_before_it_orders_has_handed_nothing_over() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].stalled = True
    leader.submit(1)
    leader.transfer(7, 3)
    scene.isolate(1)
    assert scene.run(5_000, lambda: 7 in leader.answers)
    assert leader.answers[7] in (
        OrderAnswered(7, False, "not_yet"),
        OrderAnswered(7, False, "no_leader"),
    )
    assert not scene[3].serves


def test_an_order_that_did_not_reach_the_heir_has_handed_nothing_over() -> None:
    """It was said to be done as soon as the order was sent, whatever then ended the office."""
    scene = Scene(timing=Timing(transfer_us=5_000 * MS))
    leader = scene.elect(1)
    scene.settle()
    lost = scene.hold(lambda message: isinstance(message, TransferOrder))
    leader.transfer(7, 3)
    assert lost
    scene.isolate(1)
    assert scene.run(5_000, lambda: 7 in leader.answers)
    assert leader.answers[7] == OrderAnswered(7, False, "no_leader")


def test_a_sole_voter_has_nobody_to_hand_over_to() -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    scene.settle()
    leader.transfer(7, None)
    assert leader.answers[7].detail.startswith("no other server that votes is there to take over")


def test_an_ordered_hand_over_that_is_called_off_may_come_later() -> None:
    scene = Scene(limits=Limits(servers_max=2))
    leader = scene.elect(1)
    scene.settle()
    scene[3].crash()
    for ticket in (7, 8, 9):
        leader.transfer(ticket, 3)
    assert leader.answers == {9: OrderAnswered(9, False, "overloaded")}
    scene.run(700)
    assert leader.serves
    assert leader.answers[7] == OrderAnswered(7, False, "not_yet")
    assert leader.answers[8] == OrderAnswered(8, False, "not_yet")


def test_a_hand_over_to_the_dead_is_called_off() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].crash()
    leader.turn(events.Transfer(C))
    scene.run(400)
    assert leader.node.role.handing_over  # type: ignore[union-attr]
    scene.run(200)
    assert leader.serves
    assert not leader.node.role.handing_over  # type: ignore[union-attr]
    leader.submit(1)
    assert scene.run(50, lambda: scene.numbers() == [1])


def test_nobody_is_ordered_before_it_has_everything() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].stalled = True
    leader.submit(1)
    leader.turn(events.Transfer(C))
    scene.run(300)
    assert scene.messages(TransferOrder) == []
    scene[3].stalled = False
    scene[3].sync()
    assert scene.run(50, lambda: scene[3].serves)


def test_only_a_leader_can_hand_over() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[2].turn(events.Transfer(C))
    scene.run(1_000)
    assert scene.messages(TransferOrder) == []
    assert leader.serves


@pytest.mark.parametrize("target", [None, NodeId(77), A])
def test_a_leader_without_an_heir_leads_on(target: NodeId | None) -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    leader.turn(events.Transfer(target))
    assert "nobody to hand leadership over to" in leader.tells
    leader.submit(1)
    scene.settle()
    assert scene.numbers() == [1]


def test_a_hand_over_under_way_is_not_given_to_another() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.turn(events.Transfer(C), events.Transfer(B))
    assert scene.run(50, lambda: scene[3].serves)
    assert {to for _, to, message in scene.sent if isinstance(message, TransferOrder)} == {C}


def test_with_preempt_a_higher_id_takes_over_in_order() -> None:
    scene = Scene(preempt=True)
    leader = scene.elect(1)
    asked = len(scene.messages(PreVote))
    scene.run(scene.timing.suspect_ceiling_us // MS - 100)
    assert leader.serves, "not before the new leadership has settled"
    assert scene.run(500, lambda: scene[3].serves)
    assert [to for _, to, message in scene.sent if isinstance(message, TransferOrder)] == [3]
    assert len(scene.messages(PreVote)) == asked, "nobody was without a leader"
    scene.run(10_000)
    assert scene.leader is scene[3]


def test_with_preempt_a_higher_id_that_is_gone_is_not_waited_for() -> None:
    scene = Scene(preempt=True)
    leader = scene.elect(2)
    scene.settle()
    scene[3].crash()
    scene.run(10_000)
    assert leader.serves
    assert scene.messages(TransferOrder) == []
    scene[3].start()
    assert scene.run(5_000, lambda: scene[3].serves)


def test_only_its_own_leader_may_order_a_follower() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].turn(events.Received(B, TransferOrder(leader.node.leader_ballot)))
    scene[3].turn(events.Received(A, TransferOrder(Ballot(0, A))))
    assert not scene[3].campaigns
    scene[3].turn(events.Received(A, TransferOrder(leader.node.leader_ballot)))
    assert scene[3].campaigns


def test_an_order_of_an_older_leadership_does_not_break_stickiness() -> None:
    scene = Scene()
    first = scene.elect(1).node.leader_ballot
    scene.settle()
    scene.elect(2)
    scene.settle()
    promised = scene[3].node.promised
    scene[3].turn(events.Received(A, Prepare(Ballot(promised.term + 1, A), first, 1)))
    assert scene[3].node.promised == promised
    assert scene.messages(PrepareRefused, 3)


def test_a_leader_with_nobody_whose_clock_is_better_leads_on() -> None:
    """Three clocks of three minds: another leader would stamp no better."""
    scene = Scene()
    scene[2].skew_us, scene[3].skew_us = 60_000 * MS, -60_000 * MS
    leader = scene.elect(1)
    scene.run(200)
    leader.submit(1)
    scene.run(1_000)
    assert any("clock differs" in line for line in leader.tells)
    assert scene.messages(TransferOrder) == []
    assert leader.serves
    assert scene.numbers() == [1]
    assert scene.committed[-1].time_us == 0, "no clock of these is believed"


def test_a_leader_whose_clock_is_outvoted_hands_over() -> None:
    scene = Scene()
    scene[1].skew_us = 60_000 * MS
    leader = scene.elect(1)
    scene.run(200)
    leader.submit(1)
    assert scene.run(500, lambda: scene.leader is not None and scene.leader is not leader)
    assert any("clock differs" in line for line in leader.tells)
