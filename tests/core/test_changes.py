"""Who votes changes while it runs: one committed entry at a time."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from scene import MS, Scene, Server, voter_set

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.events import OrderAnswered
from distinv.entry import EntryKind, NodeId, decode_voters, encode_voters
from distinv.wire.messages import Append, AppendAck, Dismissed, Heartbeat, HeartbeatAck

QUICK = Timing(autopilot_us=100 * MS, promote_after_us=300 * MS, evict_after_us=5_000 * MS)


def voters_of(server: Server) -> tuple[NodeId, ...]:
    current = server.node.membership.current()
    return current.ids if current is not None else ()


def has_voters(scene: Scene, *ids: int) -> bool:
    leader = scene.leader
    return leader is not None and [tuple(each) for each in leader.node.sets()] == [ids]


def propose(scene: Scene, *ids: int) -> None:
    """The leader appends this voter set now, whatever it thinks of it."""
    leader = scene.leader
    assert leader is not None
    role: Any = leader.node.role
    role.append_voters(encode_voters(voter_set(ids)))
    leader.turn()


def grown(count: int, learners: int, timing: Timing = QUICK) -> Scene:
    """`count` voters that work, and learners that have the log."""
    scene = Scene(count, learners=learners, timing=evolve(timing, promote_after_us=3_600_000 * MS))
    scene.elect(1)
    scene.settle()
    assert scene.run(10_000, lambda: all(s.node.log.last_index for s in scene.servers.values()))
    scene.settle()
    return scene


# --- joining ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("learners", "voters"), [(1, 1), (2, 3), (3, 3), (4, 5), (6, 5)])
def test_servers_that_keep_up_are_given_votes(learners: int, voters: int) -> None:
    scene = Scene(1, learners=learners, timing=QUICK)
    leader = scene.settle()
    scene.run(8_000)
    assert scene.leader is leader
    assert len(voters_of(leader)) == voters
    leader.submit(1)
    scene.settle()
    assert scene.numbers() == [1]
    sizes = [
        len(decode_voters(entry.payload).ids)
        for entry in scene.committed
        if entry.kind == EntryKind.VOTERS
    ]
    assert all(size % 2 for size in sizes), "odd at every step"


def test_a_voter_that_was_promoted_counts() -> None:
    scene = Scene(1, learners=2, timing=QUICK)
    scene.settle()
    assert scene.run(8_000, lambda: has_voters(scene, 1, 2, 3))
    scene.settle()
    scene[1].crash()
    assert scene.run(5_000, lambda: scene.leader is not None), "two of three go on"


def test_a_server_that_does_not_keep_up_is_given_none() -> None:
    scene = Scene(1, learners=2, timing=QUICK)
    scene[3].stalled = True
    assert scene.run(10_000, lambda: scene.leader is not None)
    scene.run(8_000)
    assert has_voters(scene, 1)
    scene[3].stalled = False
    scene[3].sync()
    assert scene.run(8_000, lambda: has_voters(scene, 1, 2, 3))


# --- being away -------------------------------------------------------------------------------


def test_who_is_gone_for_long_is_replaced() -> None:
    scene = Scene(3, learners=1, timing=QUICK)
    scene.elect(1)
    scene.settle()
    scene.run(2_000)
    scene[3].crash()
    scene.run(4_000)
    assert has_voters(scene, 1, 2, 3), "minutes, not moments"
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 4))
    scene[3].start()
    assert scene.run(8_000, lambda: scene[3].applied == scene[1].applied), "and comes back to learn"
    assert has_voters(scene, 1, 2, 4)


def test_eviction_does_not_shrink_the_cluster_away() -> None:
    scene = Scene(5, timing=QUICK)
    scene.elect(1)
    scene.settle()
    for gone in (5, 4, 3):
        scene[gone].crash()
        scene.run(15_000)
        if gone == 5:
            assert has_voters(scene, 1, 2, 3)
    assert voters_of(scene[1]) == (1, 2, 3), "two of three lead on, and are no cluster of one"
    assert scene.leader is scene[1]


def test_a_leader_that_hears_nobody_any_more_changes_nothing() -> None:
    """Its last words would be a set of which nobody can find a majority (seed 1016: the leader
    was deaf, and the voters that it let go were the ones that were well)."""
    scene = grown(5, 0)
    for gone in (4, 5):
        scene[gone].crash()
    scene.run(4_700)
    scene.cut((2, 1), (3, 1))
    assert scene.run(2_000, lambda: scene.leader is None)
    assert {voters_of(server) for server in scene.servers.values()} == {(1, 2, 3, 4, 5)}
    scene.heal()
    assert scene.run(12_000, lambda: has_voters(scene, 1, 2, 3))


# --- orders -----------------------------------------------------------------------------------


def test_a_server_leaves_by_order_and_is_told_when_it_may() -> None:
    scene = grown(5, 0)
    scene[1].order(7, 5, votes=False)
    assert 7 not in scene[1].answers, "nobody knows yet"
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7] == OrderAnswered(7, True, "")
    assert has_voters(scene, 1, 2, 3)
    knowing = [id for id in (1, 2, 3) if len(scene[id].node.sets()) == 1]
    assert len(knowing) >= 2
    scene[5].crash()
    scene[4].crash()
    scene[1].crash()
    assert scene.run(8_000, lambda: scene.leader is not None), "they may all be switched off"


def test_a_leader_leaves_by_handing_over_first() -> None:
    scene = grown(3, 1)
    scene[1].order(7, 1, votes=False)
    assert scene.run(5_000, lambda: scene.leader not in (None, scene[1]))
    assert scene[1].answers[7] == OrderAnswered(7, False, "no_leader")
    leader = scene.leader
    assert leader is not None
    leader.order(8, 1, votes=False)
    assert scene.run(5_000, lambda: 8 in leader.answers)
    assert leader.answers[8].done
    assert 1 not in voters_of(leader)


def test_who_left_is_not_promoted_again_while_it_is_there() -> None:
    scene = Scene(3, learners=1, timing=QUICK)
    scene.elect(1)
    scene.settle()
    scene[1].order(7, 4, votes=False)
    scene[1].order(8, 3, votes=False)
    scene.run(10_000)
    assert scene[1].answers[8].done
    assert voters_of(scene[1]) == (1,)
    scene[1].order(9, 4, votes=True)
    scene.run(10_000)
    assert voters_of(scene[1]) == (1, 2, 4)
    assert scene[1].answers[9].done


def removed(scene: Scene, id: int) -> None:
    """`id` is removed by order, and the leader that did it dies for a while."""
    scene.announce()  # replicas look for the next leader by themselves
    leader = scene.leader
    assert leader is not None
    leader.order(7, id, votes=False)
    assert scene.run(5_000, lambda: 7 in leader.answers)
    assert leader.answers[7].done
    scene.run(500)
    leader.crash()
    assert scene.run(5_000, lambda: scene.leader is not None)
    leader.start()


def test_who_was_removed_by_order_is_not_promoted_by_a_later_leader() -> None:
    scene = Scene(5, timing=QUICK)
    scene.elect(1)
    scene.settle()
    removed(scene, 5)
    scene.run(8_000)
    later = scene.leader
    assert later not in (None, scene[1])
    assert 5 not in voters_of(scene[2])
    assert scene[5].applied == scene[2].applied, "it goes on as a replica"


def test_who_has_not_heard_of_its_removal_is_not_gone_yet() -> None:
    """The order was answered as soon as the others knew. The leader died with its word unsent, the
    next one gave the vote back, and an operator took the machine away all the same."""
    scene = Scene(3, learners=2, timing=QUICK)
    scene.elect(1)
    scene.settle()
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))
    unsent = scene.hold(lambda message: isinstance(message, Dismissed))
    scene[1].order(7, 2, votes=False, confirmed=True)
    scene.run(2_000)
    assert has_voters(scene, 1, 3, 4)
    assert unsent, "it is said again and again"
    assert scene[1].answers == {7: OrderAnswered(7, False, "not_yet")}
    scene[1].crash()
    scene.run(10_000)
    assert 2 in voters_of(scene.settle()), "nobody knows, and nobody was told otherwise"


def test_a_removed_server_says_so_and_its_removal_is_answered() -> None:
    scene = grown(5, 0)
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene[5].node.abstains, "before anybody is told that it is done"


def test_who_said_that_it_abstains_and_is_gone_is_forgotten_at_once() -> None:
    scene = grown(5, 0)
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    role: Any = scene[1].node.role
    assert NodeId(5) in role.peers
    scene[5].crash()
    assert scene.run(2_000, lambda: NodeId(5) not in role.peers)


def test_who_is_dead_has_to_know_nothing() -> None:
    scene = grown(5, 0)
    scene[5].crash()
    scene.run(2_000)
    scene[1].order(7, 5, votes=False)
    assert scene.run(2_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7].done


def test_the_leaders_word_is_repeated_until_it_is_heard() -> None:
    scene = grown(5, 0)
    lost = scene.hold(lambda message: isinstance(message, Dismissed))
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: len(lost) > 1)
    assert 7 not in scene[1].answers
    scene.release(lost)
    assert scene.run(2_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7].done


def test_an_order_promotes_who_was_removed() -> None:
    scene = Scene(5, timing=QUICK)
    scene.elect(1)
    scene.settle()
    removed(scene, 5)
    leader = scene.settle()
    scene.run(1_000)
    leader.order(8, 5, votes=True)
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))
    scene.settle()
    leader.crash()
    assert scene.run(5_000, lambda: scene.leader is not None)
    leader.start()
    scene.run(8_000)
    assert 5 in voters_of(scene[5]), "and the next leader has nothing against it"


def test_a_removed_server_that_is_started_again_is_welcome() -> None:
    scene = Scene(5, timing=QUICK)
    leader = scene.elect(1)
    scene.settle()
    leader.order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in leader.answers)
    scene.run(5_000)
    assert has_voters(scene, 1, 2, 3)
    scene[5].restart()
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 3, 4, 5)), "by the very same leader"


def test_who_lags_behind_its_own_removal_abstains_all_the_same() -> None:
    """The word that it is removed comes before the sets that still name it."""
    scene = grown(3, 2)
    lags = [True]
    scene.lose = lambda source, to, message: lags[0] and to == 5 and isinstance(message, Append)
    propose(scene, 1, 2, 3, 4, 5)
    assert scene.run(2_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene.run(1_000, lambda: scene[5].node.abstains)
    lags[0] = False
    scene.settle()
    assert voters_of(scene[5]) == (1, 2, 3)
    assert len(scene[5].node.log.voter_indexes) == 3, "it was named by the second"
    assert scene[5].node.abstains


@pytest.mark.parametrize("votes", [True, False])
def test_an_order_for_a_server_that_nobody_knows_is_refused(votes: bool) -> None:
    scene = grown(3, 0)
    scene[1].order(7, 99, votes=votes)
    assert scene[1].answers[7] == OrderAnswered(7, False, "not_yet")  # it may be on its way
    scene.run(2_000)
    scene[1].order(8, 99, votes=votes)
    assert scene[1].answers[8] == OrderAnswered(8, False, "unknown_server")


def test_there_are_no_more_voters_than_there_may_be() -> None:
    scene = grown(5, 1)
    scene[1].order(7, 6, votes=True)
    assert scene[1].answers[7] == OrderAnswered(7, False, "5 servers vote already")


def test_a_leader_works_on_so_many_orders_at_a_time() -> None:
    scene = Scene(3, timing=QUICK, limits=Limits(servers_max=1))
    scene.elect(1)
    scene.settle()
    scene[3].crash()
    scene[1].order(7, 2, votes=False)
    scene[1].order(8, 3, votes=False)
    assert scene[1].answers == {8: OrderAnswered(8, False, "overloaded")}


def test_only_the_leader_dismisses() -> None:
    scene = grown(3, 1)
    index = scene[4].node.voters_index
    scene[4].turn(events.Received(NodeId(2), Dismissed(False, index)))
    assert not scene[4].node.abstains
    scene[4].turn(events.Received(NodeId(1), Dismissed(False, index)))
    assert scene[4].node.abstains


def test_a_leader_that_was_voted_out_before_it_led_gives_way() -> None:
    """It has the best log of those that campaign, and no vote by the last set in it."""
    scene = grown(3, 1)
    scene.cut((1, 4), (4, 1))
    propose(scene, 2, 3, 4)
    assert scene.run(2_000, lambda: scene[1].node.commit == scene[1].node.log.last_index)
    scene.cuts.clear()
    assert scene.run(5_000, lambda: scene.leader not in (None, scene[1]))
    assert has_voters(scene, 2, 3, 4)


def test_who_was_never_heard_of_may_be_given_a_vote() -> None:
    """By a set that another leader made: it is served like everybody else."""
    scene = Scene(3, learners=2, timing=QUICK)
    scene[4].crash()
    scene[5].crash()
    scene.elect(1)
    scene.settle()
    propose(scene, 1, 2, 3, 4, 5)
    scene[4].start()
    scene[5].start()
    assert scene.run(8_000, lambda: scene[4].applied == scene[1].applied)
    assert NodeId(4) in scene[1].node.role.peers  # type: ignore[union-attr]


def test_a_voter_that_is_silent_for_long_is_still_waited_for() -> None:
    """Learners are forgotten after a while, voters are not."""
    scene = grown(3, 0, Timing())
    scene[3].crash()
    scene.run(Timing().link_idle_us // MS + 2_000)
    assert scene[1].node.role.peers == (2, 3)  # type: ignore[union-attr]
    scene[3].start()
    scene[1].submit(1)
    scene.settle()
    assert scene[3].applied == scene[1].applied


def test_an_order_to_a_follower_is_refused() -> None:
    scene = grown(3, 0)
    scene[2].order(7, 3, votes=False)
    assert scene[2].answers[7] == OrderAnswered(7, False, "not_leader")


def test_the_only_server_cannot_leave() -> None:
    scene = grown(1, 0)
    scene.run(2_000)
    scene[1].order(7, 1, votes=False)
    answer = scene[1].answers[7]
    assert not answer.done
    assert "nobody else could vote" in answer.detail
    assert voters_of(scene[1]) == (1,)


def test_three_become_one_only_when_that_is_confirmed() -> None:
    """Of the two that stay only one can vote, and then nothing may fail any more."""
    scene = grown(3, 0)
    scene.run(2_000)
    scene[1].order(7, 3, votes=False, confirmed=False)
    answer = scene[1].answers[7]
    assert not answer.done
    assert answer.detail.startswith("then only one server votes")
    assert "--yes" in answer.detail
    scene.run(2_000)
    assert has_voters(scene, 1, 2, 3)
    scene[1].order(8, 3, votes=False, confirmed=True)
    assert scene.run(5_000, lambda: len(voters_of(scene[1])) == 1)


def test_who_was_removed_before_is_nobodys_replacement() -> None:
    """It follows, and looks like a replica that would step in; but it does not."""
    scene = Scene(4, timing=QUICK)
    scene.elect(1)
    scene.settle()
    scene.run(4_000)
    (learner,) = {1, 2, 3, 4} - set(voters_of(scene[1]))
    scene[1].order(7, learner, votes=False, confirmed=False)
    scene.run(2_000)
    assert scene[1].answers[7].done, "it takes nobody's vote away"
    scene[1].order(8, 2 if learner != 2 else 3, votes=False, confirmed=False)
    assert scene[1].answers[8].detail.startswith("then only one server votes")


def test_with_a_replica_that_steps_in_nothing_has_to_be_confirmed() -> None:
    scene = grown(3, 1)
    scene.run(2_000)
    scene[1].order(7, 3, votes=False, confirmed=False)
    assert scene.run(5_000, lambda: has_voters(scene, 1, 2, 4))
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7].done


def test_a_new_leader_waits_for_replicas_before_it_asks_to_confirm() -> None:
    """They have not found it yet, and may step in."""
    scene = grown(3, 1)
    scene[1].crash()
    assert scene.run(5_000, lambda: scene.leader is not None)
    leader = scene.leader
    assert leader is not None
    leader.order(7, 1, votes=False, confirmed=False)
    assert leader.answers[7] == OrderAnswered(7, False, "not_yet")


def test_a_sole_voter_leaves_by_giving_votes_first() -> None:
    """There is nobody to hand over to before some replica has a vote; nothing gets less."""
    scene = grown(1, 2)
    scene.run(2_000)
    scene[1].order(7, 1, votes=False, confirmed=False)
    assert scene.run(5_000, lambda: scene.leader not in (None, scene[1]))
    assert voters_of(scene[1]) == (1, 2, 3)


def test_of_two_servers_the_one_that_votes_may_leave() -> None:
    """One seat, and two servers: it asked for ever, since nobody could come in beside it."""
    scene = grown(1, 1)
    scene.run(2_000)
    scene[1].submit(1)
    scene[1].order(7, 1, votes=False)
    assert scene.run(5_000, lambda: scene[2].serves)
    assert voters_of(scene[2]) == (2,)
    scene.announce()
    scene.run(2_000)
    scene[2].order(8, 1, votes=False)
    assert scene.run(5_000, lambda: 8 in scene[2].answers)
    assert scene[2].answers[8].done
    scene[1].crash()
    scene[2].submit(2)
    assert scene.run(2_000, lambda: scene.numbers() == [1, 2]), "and it may be switched off"


def test_a_sole_voter_that_leaves_gives_no_vote_back_to_who_was_removed() -> None:
    """To give somebody a vote beside it, everybody's removal was forgotten, not only its own."""
    scene = grown(1, 2)
    scene.run(2_000)
    scene[1].order(7, 2, votes=False)
    assert scene.run(2_000, lambda: 7 in scene[1].answers)
    scene[1].order(8, 1, votes=False)
    assert scene.run(5_000, lambda: scene[3].serves)
    assert has_voters(scene, 3)
    assert scene[2].node.abstains


def test_a_sole_voter_that_was_removed_takes_no_vote_back() -> None:
    """A leader is told of nobody's removal, its own included: its successor gave the vote back."""
    scene = grown(1, 2)
    scene.timing = QUICK
    scene.run(2_000)
    scene[1].order(7, 2, votes=False)
    assert scene.run(2_000, lambda: 7 in scene[1].answers)
    scene[1].order(8, 1, votes=False)
    assert scene.run(5_000, lambda: scene[3].serves and 8 in scene[1].answers)
    assert scene[1].answers[8].done
    assert scene[1].node.abstains
    scene.run(10_000)
    assert has_voters(scene, 3)


def test_a_late_word_of_before_its_removal_counts_for_nothing() -> None:
    """Heartbeats' answers may overtake each other: of a server that was removed, and knew it, an
    older one said that it did not abstain, and it was given its vote back."""
    scene = grown(5, 0)
    held = scene.hold_between(
        lambda source, to, each: source == 5 and isinstance(each, HeartbeatAck)
    )
    assert scene.run(500, lambda: bool(held))
    late = held[0]
    held.clear()
    scene.release(held)
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7].done
    role: Any = scene[1].node.role
    progress = role.progress_of(NodeId(5))
    assert progress.abstains
    scene.pass_on(late)
    assert progress.abstains, "as it was when it was heard last"
    assert role.changes._abstains(NodeId(5))


def test_a_vote_that_makes_an_even_number_is_refused_at_once() -> None:
    scene = grown(1, 1)
    scene[1].order(7, 2, votes=True)
    assert scene[1].answers[7] == OrderAnswered(7, False, "not_yet"), "others may be on their way"
    scene.run(2_000)
    scene[1].order(8, 2, votes=True)
    assert "it would be an even number: start another server" in scene[1].answers[8].detail
    assert voters_of(scene[1]) == (1,)


def test_a_commit_that_ends_a_change_is_counted_on() -> None:
    """The command behind it was held by a majority of the new set, and nobody counted again."""
    scene = grown(3, 2)
    scene[3].crash()
    late = scene.hold_between(
        lambda source, to, message: source == 2 and isinstance(message, AppendAck | HeartbeatAck)
    )
    propose(scene, 1, 4, 5)
    scene.run(100)
    index = scene[1].node.voters_index
    assert scene[2].node.durability.durable_index == index
    scene.cut((1, 2))
    scene[1].submit(1)
    scene.run(100)
    assert scene[1].node.commit < index, "of the old set only the leader is known to have it"
    scene.cut((2, 1))
    scene.release(late)
    assert scene.run(500, lambda: scene.numbers() == [1])


# --- races ------------------------------------------------------------------------------------


def test_a_sole_leader_crashes_with_its_change_unsynced() -> None:
    """The two newcomers may hold the set of three; the one that wrote it never did."""
    scene = grown(1, 2)
    leader = scene[1]
    leader.stalled = True
    propose(scene, 1, 2, 3)
    assert scene.run(2_000, lambda: voters_of(scene[2]) == (1, 2, 3))
    assert not has_voters(scene, 1, 2, 3), "not committed: the old set has its say"
    leader.crash()
    scene.run(10_000)
    assert scene.leader is None, "neither of the two can know what the one has decided since"
    leader.stalled = False
    leader.start()
    scene.settle().submit(1)
    scene.settle()
    assert scene.numbers() == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_swap_races_a_change_of_leader(seed: int) -> None:
    """{1, 2, 3} becomes {1, 2, 4} in 1's log only, while 2 and 3 elect another leader."""
    scene = Scene(3, learners=1, seed=seed, timing=QUICK)
    scene.elect(1)
    scene.settle()
    scene.isolate(1)
    propose(scene, 1, 2, 4)
    assert scene.run(8_000, lambda: scene.leader not in (None, scene[1]))
    leader = scene.leader
    assert leader is not None
    leader.submit(1)
    scene.run(500)
    scene.heal()
    scene.settle()
    assert scene.numbers() == [1]
    assert len({voters_of(server) for server in scene.servers.values()}) == 1
    for server in scene.servers.values():
        assert server.node.elector.members == server.node.voters()


def test_five_become_three_the_leavers_are_switched_off_and_the_leader_dies() -> None:
    scene = grown(5, 0)
    scene.lose = lambda source, target, message: target == 3 and isinstance(message, Heartbeat)
    scene[1].order(7, 5, votes=False)
    assert scene.run(5_000, lambda: 7 in scene[1].answers)
    assert scene[1].answers[7].done
    for id in (4, 5, 1):
        scene[id].crash()
    scene.lose = lambda *_: False
    assert scene.run(8_000, lambda: scene.leader is not None)
    assert voters_of(scene[2]) == (1, 2, 3)


def test_a_promoted_server_does_not_know_it_yet_while_the_leader_dies() -> None:
    """The change is committed by 1, 2 and 4; 3 and 5 have never seen it, and 2 must have them."""
    scene = grown(3, 2)
    behind = [NodeId(3), NodeId(5)]
    scene.lose = lambda source, target, message: target in behind and isinstance(message, Append)
    propose(scene, 1, 2, 3, 4, 5)
    assert scene.run(2_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))
    assert voters_of(scene[5]) == (1, 2, 3)
    scene[1].crash()
    scene[4].crash()
    scene.lose = lambda *_: False
    assert scene.run(10_000, lambda: scene.leader is not None), "2, 3 and 5 are three of five"
    scene.settle()
    assert voters_of(scene[5]) == (1, 2, 3, 4, 5)


def test_a_candidate_asks_voters_of_whom_only_a_promise_tells_it() -> None:
    """3 campaigns with the old set; 2's promise names 4 and 5, of whom 3 has never heard."""
    scene = grown(3, 2)
    scene.lose = lambda source, target, message: target == 3 and isinstance(message, Append)
    propose(scene, 1, 2, 3, 4, 5)
    assert scene.run(2_000, lambda: has_voters(scene, 1, 2, 3, 4, 5))
    assert voters_of(scene[3]) == (1, 2, 3)
    scene[1].crash()
    scene.lose = lambda *_: False
    scene[3].node.become_candidate("the scene wants it", scene[3].node.leader_ballot)
    scene[3].turn()
    assert scene.run(3_000, lambda: scene[3].serves), scene[3].tells


def test_a_removed_server_disrupts_nobody() -> None:
    """It never hears that it was voted out, and campaigns on."""
    scene = grown(3, 1)
    scene.isolate(3)
    propose(scene, 1, 2, 4)
    assert scene.run(3_000, lambda: has_voters(scene, 1, 2, 4))
    ballot = scene[1].node.leader_ballot
    scene.heal()
    scene.cut((1, 3), (2, 3), (4, 3))  # it is heard, and hears nobody
    scene.run(20_000)
    assert scene.leader is scene[1]
    assert scene[1].node.leader_ballot == ballot


def test_no_change_before_the_own_noop_nor_while_one_is_under_way() -> None:
    scene = Scene(1, learners=4, timing=QUICK)
    seen: list[int] = []

    def look(server: Server) -> None:
        node = server.node
        open_changes = [at for at in node.log.voter_indexes if at > node.commit]
        seen.append(len(open_changes))
        assert len(open_changes) <= 1

    scene.on_step = look
    scene.settle()
    scene.run(8_000)
    assert has_voters(scene, 1, 2, 3, 4, 5)
    assert 1 in seen


def test_acknowledgements_of_a_learner_count_for_nothing() -> None:
    scene = grown(3, 2)
    scene.cut((2, 1), (3, 1))
    scene[1].submit(1)
    scene.run(300)
    acknowledged = [*scene.messages(AppendAck, 4, 1), *scene.messages(HeartbeatAck, 4, 1)]
    assert acknowledged[-1].verified == scene[1].node.log.last_index
    assert scene.numbers() == []
