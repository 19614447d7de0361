"""How a leader changes who votes: one committed entry at a time, with the whole new set.

None is appended before the leader's own no-op is committed, nor while an earlier one may not be:
then the set before it and its own are the only ones in play (the rule that the single-server
changes of Raft lacked at first; Ongaro's thesis, chapter 4). A newcomer is a learner until it has
kept up for a while. Who is voted out goes on until a majority of the new set knows that the
change is committed: without it nobody else might be able to find that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve

from distinv.core.autopilot import Member, best_voters
from distinv.core.birth import odd_voters
from distinv.core.events import Order, OrderAnswered
from distinv.core.quorum import is_quorum
from distinv.entry import NodeId, Voter, VoterSet, encode_voters
from distinv.wire.messages import Dismissed

if TYPE_CHECKING:
    from distinv.core.leader import Leader
    from distinv.core.node import Node


FEW = (
    "then only one server votes: the others are copies, and nothing goes on without it. Confirm it "
    "(--yes, confirmed=True) if that is what you want"
)


@define
class _Order:
    """Somebody wants a server to have no vote, or one."""

    ticket: int
    server: NodeId
    votes: bool
    stop: bool
    until: int
    told_at: int
    """When the server was told last that it is done."""


class Changes:
    """The leader's dealings with the voter set, from its first commit to the end of its office."""

    def __init__(self, node: Node, leader: Leader) -> None:
        self._node = node
        self._leader = leader
        self._since = node.now
        self._look_at = node.now + node.timing.autopilot_us
        self._commit_then = node.log.last_index
        """The commit index at the look before: who has kept up holds all of that durably."""
        self._orders: list[_Order] = []
        self._transfers: list[int] = []
        """Tickets of those who wait for somebody else to lead."""
        self._wishes: dict[NodeId, bool] = {}
        """Who shall vote by order, and who shall not; until they fall silent. A removed server
        that knows of it says so itself, to the next leader as well (`HeartbeatAck.abstains`)."""

    # --- orders -------------------------------------------------------------------------------

    def order(self, order: Order) -> None:
        """Take or give a vote. Answered when a majority of the new set knows the outcome."""
        node, server = self._node, order.server
        refusal = self._refusal(server, votes=order.votes)
        if refusal is None and not order.confirmed and self._would_be_few(order):
            refusal = FEW if self._settled else "not_yet"
        if refusal is not None:
            node.emit(OrderAnswered(order.ticket, False, refusal))
            return
        self._wishes[server] = order.votes
        until = node.now + node.timing.order_us
        self._orders.append(
            _Order(
                *(order.ticket, server, order.votes, order.stop, until),
                told_at=node.now - node.timing.heartbeat_us,
            )
        )
        self._look_at = node.now
        self._settle_orders()

    def _refusal(self, server: NodeId, *, votes: bool) -> str | None:
        node, leader = self._node, self._leader
        if not leader.serving or node.log.dissolved is not None:
            return "no_leader"
        if len(self._orders) >= node.limits.servers_max:
            return "overloaded"
        known = node.is_voter(server) or leader.progress_of(server) is not None
        if not known:
            return "unknown_server" if self._settled else "not_yet"
        if not votes and not self._others_than(server):
            # Who does not vote has to find a new leader first.
            nobody = (
                "nobody else could vote: without it there is no cluster. Start another server "
                "first, or just stop this one"
            )
            return nobody if self._settled else "not_yet"
        if votes and server not in self._voting():
            return self._no_seat_for(server)
        return None

    def _no_seat_for(self, server: NodeId) -> str | None:
        most, voting = self._node.limits.voters_max, self._voting()
        if len(voting) >= most:
            return f"{most} servers vote already"
        others = self._others_than(server)
        if odd_voters(len(others) + 1, most) > sum(each.votes for each in others):
            return None
        odd = (
            f"{len(voting)} of the servers that are here vote, and with this one it would be an "
            "even number: start another server first, which gets a vote with it"
        )
        return odd if self._settled else "not_yet"

    def _would_be_few(self, order: Order) -> bool:
        """It takes a vote that nobody who is there will have instead."""
        voting, least = self._voting(), self._node.limits.voters_min
        if order.votes or order.server not in voting or len(voting) < least:
            return False
        return odd_voters(len(self._others_than(order.server)), len(voting)) < least

    def _others_than(self, server: NodeId) -> list[Member]:
        return [
            each
            for each in self._members()
            if each.node != server and not each.leaving and not each.gone
        ]

    def transfer(self, ticket: int, target: NodeId | None) -> None:
        """Hand leadership over; answered when it is."""
        node, leader = self._node, self._leader
        if target == node.self_id:
            node.emit(OrderAnswered(ticket, True, ""))
            return
        under_way = leader.hand_over.target
        leader.transfer_to(target)
        if under_way is not None and target not in (None, under_way):
            node.emit(OrderAnswered(ticket, False, "not_yet"))
        elif not leader.handing_over:
            node.emit(OrderAnswered(ticket, False, self._why_not_to(target)))
        elif len(self._transfers) >= node.limits.servers_max:
            node.emit(OrderAnswered(ticket, False, "overloaded"))
        else:
            self._transfers.append(ticket)

    def _why_not_to(self, target: NodeId | None) -> str:
        if target is None:
            return "no other server that votes is there to take over: start one, or promote one"
        return f"{self._leader.name_of(target)} has no vote, and cannot lead: promote it first"

    def on_hand_over_called_off(self) -> None:
        for ticket in self._transfers:
            self._node.emit(OrderAnswered(ticket, False, "not_yet"))
        self._transfers.clear()

    def abandon(self) -> None:
        """This leadership ends: the next leader has to be asked, but for a hand-over whose heir has
        this server's promise."""
        hand_over, promised = self._leader.hand_over, self._node.promised
        done = hand_over.ordered and promised.node == hand_over.target
        for ticket in self._transfers:
            self._node.emit(OrderAnswered(ticket, done, "" if done else "no_leader"))
        self._transfers.clear()
        for order in self._orders:
            self._node.emit(OrderAnswered(order.ticket, False, "no_leader"))
        self._orders.clear()

    # --- the voter set ------------------------------------------------------------------------

    @property
    def under_way(self) -> bool:
        """A change is appended and not known committed."""
        indexes = self._node.log.voter_indexes
        return bool(indexes) and indexes[-1] > self._node.commit

    def _voting(self) -> tuple[NodeId, ...]:
        current = self._node.membership.current()
        return current.ids if current is not None else ()

    def deadline(self) -> int:
        return self._look_at

    def on_time(self) -> None:
        node = self._node
        if node.now < self._look_at:
            return
        self._look_at = node.now + node.timing.autopilot_us
        self._settle_orders()
        self._look()
        self._commit_then = node.commit

    def _look(self) -> None:
        """Is another voter set better than this one? Then propose it."""
        node, leader = self._node, self._leader
        if not leader.serving or leader.handing_over or self.under_way:
            return
        if node.log.dissolved is not None:
            return  # there is nothing left to vote on
        if node.self_id not in self._voting():
            leader.transfer_to(None)  # voted out by the leader before
            return
        members = self._members()
        best = self._best(members)
        if node.self_id not in best:
            if leader.hand_over.best_successor() is not None:
                leader.transfer_to(None)  # its successor makes the change
                return
            # Those who do not vote yet have to, before there can be a successor. Where there is
            # one seat only, it is the other's as soon as that is committed.
            own, *others = members
            beside = self._best([evolve(own, leaving=False), *others])
            best = beside if beside != self._voting() else best
        fewer = len(best) < len(self._voting())
        if best != self._voting() and not (fewer and not self._settled) and self._hears(best):
            self._propose(best)

    def _hears(self, voters: tuple[NodeId, ...]) -> bool:
        """All newcomers, and a majority of these and of the present voters have answered just now.

        A leader that hears nobody any more must not change anything in its last moments: nobody
        might be able to undo it.
        """
        node = self._node
        lately_us = 3 * node.timing.heartbeat_us
        since = node.now - lately_us
        heard = [node.self_id] if node.durability.oldest_write_us(node.now) < lately_us else []
        present = self._voting()
        for peer in sorted({*voters, *present}):
            progress = self._leader.progress_of(peer)
            if progress is not None and progress.last_heard > since:
                heard.append(peer)
        newcomers = set(voters) - set(present)
        return is_quorum([voters, present], heard) and newcomers <= set(heard)

    def _best(self, members: list[Member]) -> tuple[NodeId, ...]:
        limits = self._node.limits
        return best_voters(
            members,
            self._node.self_id,
            voters_max=limits.voters_max,
            voters_min=limits.voters_min,
        )

    @property
    def _settled(self) -> bool:
        """Whoever receives the log has had time to find this leader."""
        node = self._node
        return node.now - self._since > 4 * node.timing.beacon_unjoined_us

    def _members(self) -> list[Member]:
        node, leader = self._node, self._leader
        voting, timing = self._voting(), node.timing
        members = [
            Member(node.self_id, node.self_id in voting, leaving=self._is_leaving(node.self_id))
        ]
        wanted = [order.server for order in self._orders if order.votes]
        replacing = any(self._is_leaving(peer) for peer in voting)
        for peer in sorted({*voting, *leader.peers} - {node.self_id}):
            progress = leader.progress_of(peer)
            votes = peer in voting
            assert progress is not None, "a voter whom the leader does not serve"
            silent_us = node.now - progress.last_heard
            if not votes and silent_us > timing.quorum_us:
                continue
            settled_us = 0 if replacing or peer in wanted else timing.promote_after_us
            members.append(
                Member(
                    peer,
                    votes,
                    gone=silent_us > timing.evict_after_us,
                    ready=progress.streams_for_us(node.now) >= settled_us
                    and progress.verified >= self._commit_then,
                    leaving=self._is_leaving(peer) or (not votes and self._abstains(peer)),
                )
            )
        return members

    def _is_leaving(self, server: NodeId) -> bool:
        return self._wishes.get(server) is False

    def _abstains(self, server: NodeId) -> bool:
        """It was removed by an order of which only itself may know, and by none called back."""
        progress = self._leader.progress_of(server)
        may = progress is not None and progress.abstains is not False
        return may and not self._wishes.get(server)

    def _propose(self, voters: tuple[NodeId, ...]) -> None:
        node, leader = self._node, self._leader
        current = node.membership.current()
        assert current is not None
        names = {voter.node: voter.name for voter in current.voters}
        chosen = VoterSet(
            current.cluster_name,
            current.cluster_id,
            tuple([Voter(each, names.get(each) or leader.name_of(each)) for each in voters]),
        )
        before, after = set(self._voting()), set(voters)
        come = [leader.name_of(each) for each in sorted(after - before)]
        go = [node.name_of(each) for each in sorted(before - after)]
        words = [f"{', '.join(come)} shall vote"] if come else []
        words += [f"{', '.join(go)} shall not vote any more"] if go else []
        node.tell(f"proposing {len(voters)} voters: {'; '.join(words)}")
        leader.append_voters(encode_voters(chosen))

    # --- who waits for it ---------------------------------------------------------------------

    def on_commit(self) -> None:
        """The commit index moved, here or as a follower says."""
        if self._orders:
            self._settle_orders()

    def _settle_orders(self) -> None:
        node = self._node
        for order in list(self._orders):
            decided = (order.server in self._voting()) is order.votes and self._is_known()
            done = decided and (order.votes or not self._has_to_know(order.server))
            if done or node.now >= order.until:
                self._orders.remove(order)
                if done and order.server == node.self_id and not order.votes:
                    node.abstain(node.voters_index)  # nobody else tells it
                node.emit(OrderAnswered(order.ticket, done, "" if done else "not_yet"))
            elif decided and node.now - order.told_at >= node.timing.heartbeat_us:
                order.told_at = node.now
                node.send(order.server, Dismissed(order.stop, node.voters_index))

    def _has_to_know(self, server: NodeId) -> bool:
        """It lives, and does not know yet that it was removed: were this leader to die now, the
        next one might give it a vote, and nobody would know better."""
        progress = self._leader.progress_of(server)
        return progress is not None and self._leader.reaches(server) and not progress.abstains

    def _is_known(self) -> bool:
        """A majority of the voters knows that their set is committed."""
        node = self._node
        index = node.log.voter_indexes[-1]
        knowing = [peer for peer in self._leader.peers if self._leader.commit_of(peer) >= index]
        return node.commit >= index and is_quorum([self._voting()], [node.self_id, *knowing])

    def on_silent(self, peer: NodeId) -> None:
        """A learner is not served any more; should it come back, it is welcome."""
        self._wishes.pop(peer, None)

    def on_abstains(self, peer: NodeId) -> None:
        """It says of itself whether it abstains: what was ordered is its own to remember."""
        self._settle_orders()
        if peer not in self._voting() and not any(each.server == peer for each in self._orders):
            self._wishes.pop(peer, None)
