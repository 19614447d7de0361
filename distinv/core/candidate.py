"""A server that wants to lead: pre-vote, prepare, synchronise.

An election only nominated it; a quorum ordains it. The steps:

1. *Pre-vote* moves no ballot: a majority must agree that it, too, hears no leader.
2. *Prepare* a ballot above everything seen. Own promise first, durable before Prepare leaves.
   The promises of a quorum (of the voter sets in the most up-to-date log among them) say who
   has what.
3. *Synchronise*: if a promiser is more up to date, pull to exactly its promised position.
   The log chosen so holds every committed entry: each of them is in the log of a majority, any
   majority of promises meets it, and (ballot, index) orders logs (invariant 3).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from distinv.core.events import FetchSnapshot, ReadFailed, Send
from distinv.core.log import more_up_to_date
from distinv.core.membership import has_readable_voters, sets_in_play
from distinv.core.quorum import VoterSets, can_win, is_quorum, members
from distinv.entry import NO_BALLOT, TERM_JUMP_MAX, Ballot, NodeId, Position, follows
from distinv.wire.messages import (
    BallotRefused,
    Heartbeat,
    NominateHint,
    Prepare,
    PrepareRefused,
    PreVote,
    PreVoteReply,
    Promise,
    Pull,
    PullReply,
)

if TYPE_CHECKING:
    from distinv.core.node import Node


class Stage(Enum):
    PRE_VOTE = 1
    PREPARE = 2
    SYNCHRONISE = 3


class Candidate:
    def __init__(
        self, node: Node, ordered_by: Ballot = NO_BALLOT, above: Ballot = NO_BALLOT
    ) -> None:
        self._node = node
        self.reads = node.questions
        self._ordered_by = ordered_by
        self._stage = Stage.PRE_VOTE
        self._give_up_at = node.now + node.timing.campaign_us
        self._retry_at = node.now + node.timing.retry_us
        self._alive_at = node.now
        """While synchronising: when to say again that somebody is about to lead."""
        self._number = node.random.randrange(1 << 32)
        self._granted: list[NodeId] = [node.self_id]
        self._denied: list[NodeId] = []
        self._highest = max(node.promised, above)
        self.ballot = NO_BALLOT
        self._prepare_ticket = 0
        self._asked: list[NodeId] = []
        self._promises: dict[NodeId, Promise] = {}
        self._target: Position | None = None
        self._sources: list[NodeId] = []
        self._try_after = node.log.last.index

    def start(self, skip_pre_vote: bool) -> None:
        if skip_pre_vote or is_quorum(self._node.sets(), self._granted):
            self._prepare()
        else:
            self._ask_pre_votes()

    # --- pre-vote -----------------------------------------------------------------------------

    def _would_prepare(self) -> Ballot:
        return Ballot(self._highest.term + 1, self._node.self_id)

    def _ask_pre_votes(self) -> None:
        question = PreVote(self._number, self._would_prepare(), self._node.voters_index)
        for peer in self._node.other_voters():
            if peer not in self._granted:
                self._node.send(peer, question)

    def _on_pre_vote_reply(self, source: NodeId, reply: PreVoteReply) -> None:
        if self._stage is not Stage.PRE_VOTE or reply.number != self._number:
            return
        self._highest = max(self._highest, self._sane(reply.promised))
        if reply.granted:
            if source not in self._granted:
                self._granted.append(source)
            if source in self._denied:
                self._denied.remove(source)
            if is_quorum(self._node.sets(), self._granted):
                self._prepare()
        elif source not in self._denied and source not in self._granted:
            self._denied.append(source)
            if not can_win(self._node.sets(), self._denied):
                self._give_up(f"{self._node.name_of(source)} still hears a leader")

    def _sane(self, ballot: Ballot) -> Ballot:
        """A ballot that a peer reports; one out of the blue is not followed up to."""
        return ballot if ballot.term <= self._highest.term + TERM_JUMP_MAX else self._highest

    # --- prepare ------------------------------------------------------------------------------

    def _prepare(self) -> None:
        node = self._node
        self._stage = Stage.PREPARE
        self._denied = []
        self.ballot = self._would_prepare()
        self._give_up_at = node.now + node.campaigns.patience_us(node.timing.campaign_us)
        self._retry_at = node.now + node.timing.retry_us
        node.raise_promise(self.ballot)  # invariant 1: durable before Prepare leaves
        self._prepare_ticket = node.promise_ticket
        node.tell(f"preparing term {self.ballot.term}", "debug")
        self._asked = list(node.other_voters())
        for peer in self._asked:
            node.hold(Send(peer, self._question()))

    def _question(self) -> Prepare:
        return Prepare(self.ballot, self._ordered_by, self._node.voters_index)

    def _ask_also(self, sets: VoterSets) -> None:
        """A promise names voters of whom the own log does not know."""
        node = self._node
        for peer in members(sets):
            if peer not in self._asked and peer != node.self_id:
                self._asked.append(peer)
                node.hold_for_promise(Send(peer, self._question()))

    def _own_promise(self) -> Promise:
        node = self._node
        return Promise(
            self.ballot,
            node.log.last,
            node.commit,
            node.clock_us,
            node.membership.describe(node.commit),
        )

    def on_persisted(self, log_grew: bool) -> None:
        node = self._node
        if (
            self._stage is Stage.PREPARE
            and node.self_id not in self._promises
            and node.durability.durable_ticket >= self._prepare_ticket
        ):
            self._promises[node.self_id] = self._own_promise()
            self._count()

    def _on_promise(self, source: NodeId, promise: Promise) -> None:
        # Only an echo of the exact ballot counts (invariant 2).
        if self._stage is Stage.PRE_VOTE or promise.ballot != self.ballot:
            return
        if self._node.is_voter(source):
            self._node.clocks.observe(source, promise.clock_us, self._node.now)
        if source not in self._promises:
            self._promises[source] = promise
            if self._stage is Stage.PREPARE:
                self._count()

    def _count(self) -> None:
        """A quorum of the sets in the most up-to-date log among the promises?"""
        node = self._node
        if node.self_id not in self._promises:
            return  # the own promise is not durable yet
        best_node, best = node.self_id, self._promises[node.self_id]
        for peer, promise in self._promises.items():
            if more_up_to_date(promise.last, best.last):
                best_node, best = peer, promise
        sets = self._sets_of(best)
        if not is_quorum(sets, self._promises):
            self._ask_also(sets)
            return
        if best_node == node.self_id:
            node.become_leader(self.ballot)
        else:
            self._synchronise(best_node, best.last)

    def _sets_of(self, promise: Promise) -> VoterSets:
        """Sets of staler logs do not join; an old one leaves only when some promise reports
        that very change entry committed."""
        committed = [
            (each.index, each.ballot)
            for other in self._promises.values()
            for each in other.voters
            if each.committed
        ]
        known = [
            at for at, each in enumerate(promise.voters) if (each.index, each.ballot) in committed
        ]
        return sets_in_play(promise.voters[known[-1] if known else 0 :])

    def _on_prepare_refused(self, source: NodeId, refusal: PrepareRefused) -> None:
        if self._stage is not Stage.PREPARE or refusal.ballot != self.ballot:
            return
        self._highest = max(self._highest, self._sane(refusal.promised))
        if source not in self._denied and source not in self._promises:
            self._denied.append(source)
        if not can_win(self._node.sets(), self._denied):
            self._give_up("others have promised a higher ballot or hear a leader")

    # --- synchronise --------------------------------------------------------------------------

    def _synchronise(self, source: NodeId, target: Position) -> None:
        node = self._node
        missing = target.index - node.log.last_index
        if missing > node.limits.forfeit_entries and not node.campaigns.forfeited:
            node.campaigns.forfeited = True
            node.send(source, NominateHint(node.elector.label))
            self._give_up(f"{node.name_of(source)} is {missing} entries ahead and should lead")
            return
        node.tell(f"pulling entries up to {target.index} from {node.name_of(source)}", "debug")
        self._stage = Stage.SYNCHRONISE
        self._alive_at = node.now + node.timing.heartbeat_us
        self._target = target
        others = sorted(
            peer
            for peer, promise in self._promises.items()
            if promise.last == target and peer not in (source, node.self_id)
        )
        self._sources = [source, *others]
        self._try_after = min(node.log.last_index, target.index)
        self._progress()
        self._pull()

    def _progress(self) -> None:
        self._give_up_at = self._node.now + self._node.campaigns.patience_us(
            self._node.timing.pull_stall_us
        )

    def _pull(self) -> None:
        node, target = self._node, self._target
        assert target is not None
        after = node.log.position(self._try_after)
        assert after is not None
        self._retry_at = node.now + node.timing.retry_us
        question = Pull(self.ballot, after, target.index, target.ballot)
        node.send(self._sources[0], question)

    def _on_pull_reply(self, source: NodeId, reply: PullReply) -> None:
        node, target = self._node, self._target
        if self._stage is not Stage.SYNCHRONISE or reply.ballot != self.ballot or target is None:
            return
        if not reply.held:
            if source in self._sources:
                self._sources.remove(source)
            if self._sources:
                self._pull()
            else:
                self._give_up("nobody holds the promised log any more")
            return
        if reply.after != node.log.position(self._try_after):
            return  # answers an earlier question
        if not reply.entries and reply.base > self._try_after:
            node.emit(FetchSnapshot(source))
            self._give_up(f"{node.name_of(source)} holds only a snapshot of what is missing")
            return
        if not reply.entries:
            # No common entry there: go back, never below what is committed here.
            earlier = min(reply.matches, self._try_after - 1)
            self._try_after = max(earlier, node.commit)
            self._pull()
            return
        self._take(reply, target)

    def _take(self, reply: PullReply, target: Position) -> None:
        node = self._node
        entries = tuple(entry for entry in reply.entries if entry.index <= target.index)
        if (
            not entries
            or not follows(reply.after, entries)
            or entries[-1].ballot > target.ballot
            or not has_readable_voters(entries)
        ):
            node.tell("pulled entries do not follow by hash: dropped", "error")
            return
        node.adopt(entries)
        self._try_after = entries[-1].index
        self._progress()
        if entries[-1].index < target.index:
            self._pull()
        elif node.log.last == target:
            node.become_leader(self.ballot)
        else:
            self._give_up("the pulled log ends elsewhere than promised")

    # --- the rest -----------------------------------------------------------------------------

    def on_message(self, source: NodeId, message: Any) -> None:
        _MESSAGES[type(message)](self, source, message)

    def on_ballot_refused(self, source: NodeId, message: BallotRefused) -> None:
        """A late refusal of the leadership before this candidacy: go above that promise, too."""
        self._highest = max(self._highest, self._sane(message.promised))

    def _give_up(self, why: str) -> None:
        node = self._node
        node.campaigns.failed += 1
        backoff = node.timing.campaign_backoff_us << min(node.campaigns.failed, 4)
        pause_us = node.random.randrange(backoff)
        if self._stage is not Stage.PRE_VOTE:
            node.campaigns.quiet_until = node.now + pause_us
        node.tell(f"election given up: {why}")
        node.become_follower(None, node.leader_ballot, pause_us)

    def read(self, ticket: int) -> None:
        self._node.emit(ReadFailed((ticket,), "no_leader"))

    def deadline(self) -> int | None:
        times = [self._give_up_at, self._retry_at]
        if self._stage is Stage.SYNCHRONISE:
            times.append(self._alive_at)
        return min(times)

    def excuse(self, late_us: int) -> None:
        self._give_up_at = max(self._give_up_at, self._node.campaigns.late_until)

    def on_time(self) -> None:
        node = self._node
        if node.now >= self._give_up_at:
            self._give_up("too few servers answered")
            return
        if self._stage is Stage.SYNCHRONISE and node.now >= self._alive_at:
            self._say_alive()
        if node.now < self._retry_at:
            return
        self._retry_at = node.now + node.timing.retry_us
        if self._stage is Stage.PRE_VOTE:
            self._ask_pre_votes()
        elif self._stage is Stage.PREPARE:
            for peer in self._asked:
                if peer not in self._promises:
                    node.hold_for_promise(Send(peer, self._question()))
        else:
            self._pull()
            # The answer may be under way: every further one would go behind it.
            self._retry_at += node.timing.retry_us

    def _say_alive(self) -> None:
        """Nobody should start another election while the pull makes progress."""
        node = self._node
        self._alive_at = node.now + node.timing.heartbeat_us
        for peer in node.other_voters():
            node.send(peer, Heartbeat(self.ballot, node.commit, node.log.last_index, 0))

    def end_turn(self) -> None:
        pass

    def check(self) -> None:
        if self._stage is not Stage.PRE_VOTE:
            assert self.ballot.node == self._node.self_id, "prepares somebody else's ballot"
            assert self.ballot == self._node.promised, "candidate of a ballot below the promise"


_MESSAGES: dict[type, Any] = {
    PreVoteReply: Candidate._on_pre_vote_reply,
    Promise: Candidate._on_promise,
    PrepareRefused: Candidate._on_prepare_refused,
    PullReply: Candidate._on_pull_reply,
}
