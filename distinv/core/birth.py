"""How a cluster comes into being without anybody configuring it.

The proposal *is* the log's first entry: a cluster id and a voter set. Each server accepts
durably at most one proposal, and durably refuses for ever every other one it is shown. Once a
majority of the proposed set has accepted, the cluster exists, whoever notices first; any
acceptor may finish the work of a proposer that died. An acceptance is dropped only when so many
of its set have refused it for ever that it can never win.

The machine is pure; `Node` makes its records durable before its answers leave.
"""

from __future__ import annotations

from random import Random
from typing import TypeAlias

from attrs import define, frozen

from distinv.config import Limits, Timing
from distinv.core.quorum import can_win, is_quorum
from distinv.entry import ClusterId, NodeId, Voter, VoterSet
from distinv.storage.api import BirthRecord
from distinv.transport.api import Address
from distinv.wire.messages import Beacon, BirthAnswer, BirthOffer


@define
class _Blank:
    """Another server without a cluster."""

    name: str
    expect: int
    sees: tuple[int, ...]
    last_seen: int
    address: Address | None


@frozen
class Remember:
    """Make this birth state durable."""

    record: BirthRecord


@frozen
class Answer:
    """Send once everything remembered is durable."""

    to: NodeId
    message: BirthAnswer


@frozen
class Offer:
    to: NodeId
    message: BirthOffer


@frozen
class Exists:
    """A majority accepted: this is the cluster's first entry."""

    proposal: VoterSet


@frozen
class Say:
    level: str
    text: str


BirthAction: TypeAlias = Remember | Answer | Offer | Exists | Say


def odd_voters(members: int, voters_max: int) -> int:
    """The largest odd number of voters that `members` servers give."""
    usable = min(members, voters_max)
    return usable if usable % 2 else max(1, usable - 1)


class Birth:
    """The state of one blank server."""

    def __init__(
        self,
        self_id: NodeId,
        server_name: str,
        cluster_name: str,
        expect: int,
        record: BirthRecord,
        *,
        timing: Timing,
        limits: Limits,
        random: Random,
        now: int,
        joins: int = 0,
    ) -> None:
        """`joins`: a cluster that is known to exist already."""
        self._self_id = self_id
        self._server_name = server_name
        self._cluster_name = cluster_name
        self._expect = expect
        self._timing = timing
        self._limits = limits
        self._random = random
        self.accepted = record.accepted
        self._refused: list[int] = list(record.refused)
        self._agreed: list[NodeId] = []
        self._denied: list[NodeId] = []
        self._accepted_durable = record.accepted is not None
        self._blanks: dict[NodeId, _Blank] = {}
        self._existing = 0 if record.accepted is not None else joins
        self._propose_at = now + timing.discovery_window_us
        self._offer_at = now
        self._told_waiting = 0

    # --- what others may know -----------------------------------------------------------------

    @property
    def cluster_id(self) -> int:
        """Whose messages this server takes part in: its proposal's, or the cluster it heard of."""
        return self.accepted.cluster_id if self.accepted is not None else self._existing

    @property
    def sees(self) -> tuple[int, ...]:
        return tuple(sorted(self._blanks))

    def record(self) -> BirthRecord:
        return BirthRecord(self.accepted, tuple(self._refused))

    def deadline(self) -> int:
        return self._offer_at if self.accepted is not None else self._propose_at

    # --- events -------------------------------------------------------------------------------

    def on_beacon(
        self, source: NodeId, beacon: Beacon, now: int, address: Address | None = None
    ) -> list[BirthAction]:
        """Another server of this cluster name made itself known, at `address`."""
        if beacon.cluster_id:
            self._blanks.pop(source, None)
            if self._existing == 0 and self.accepted is None:
                self._existing = beacon.cluster_id
                return [Say("info", f"found cluster {beacon.cluster_id:016x}, joining it")]
            return []
        self._forget_at(address, source)
        if source in self._blanks or len(self._blanks) < self._limits.servers_max:
            known = source in self._blanks
            self._blanks[source] = _Blank(
                beacon.server_name, beacon.expect, beacon.blank_peers, now, address
            )
            if not known:
                found = len(self._blanks) + 1
                awaited = f" of {self._expect}" if self._expect else ""
                # All expected are here: no reason to wait for the end of the window.
                if self._expect and found >= self._expect:
                    self._propose_at = min(self._propose_at, now)
                return [Say("info", f"found server {beacon.server_name} ({found}{awaited} so far)")]
            if self._expect and len(self._blanks) + 1 >= self._expect:
                self._propose_at = min(self._propose_at, now)
        return []

    def _forget_at(self, address: Address | None, source: NodeId) -> None:
        """One process lives at an address. Who was there before lost its disk, and with it its
        id: it would be counted twice, and get a seat that nobody takes."""
        if address is None:
            return
        for node, blank in list(self._blanks.items()):
            if blank.address == address and node != source:
                del self._blanks[node]

    def on_offer(self, source: NodeId, proposal: VoterSet, now: int) -> list[BirthAction]:
        """Somebody shows a proposal: accept it, or refuse it for ever."""
        if proposal.cluster_name != self._cluster_name or self._self_id not in proposal.ids:
            return []
        if not self._well_formed(proposal):
            return []
        cluster_id = proposal.cluster_id
        if self.accepted is not None and self.accepted.cluster_id == cluster_id:
            return [Answer(source, BirthAnswer(cluster_id, True, None))]
        if cluster_id in self._refused:
            return [Answer(source, BirthAnswer(cluster_id, False, self.accepted))]
        if self.accepted is not None:
            return self._refuse(source, cluster_id)
        if self._existing not in (0, cluster_id):
            return self._refuse(source, cluster_id)
        if self._expect and len(proposal.voters) != self._odd(self._expect):
            # Refused, not ignored: its proposer has to be free to propose anew.
            return [
                Say(
                    "warning",
                    f"was offered a cluster of {len(proposal.voters)} voters, but expect="
                    f"{self._expect} asks for {self._odd(self._expect)}: refused",
                ),
                *self._refuse(source, cluster_id),
            ]
        if self._may_refuse_no_more():
            return []
        return [
            *self._accept(proposal, now),
            Answer(source, BirthAnswer(cluster_id, True, None)),
        ]

    def on_answer(self, source: NodeId, answer: BirthAnswer, now: int) -> list[BirthAction]:
        """A member of the accepted proposal's set answered an offer."""
        accepted = self.accepted
        if accepted is None or answer.cluster_id != accepted.cluster_id:
            return []
        if source not in accepted.ids or source in self._agreed or source in self._denied:
            return []
        if answer.accepted:
            self._agreed.append(source)
            return self._maybe_exists()
        self._denied.append(source)
        if can_win([accepted.ids], self._denied):
            return []
        actions = self._give_up(accepted, now)
        if answer.rival is not None:
            actions += self._consider(answer.rival, now)
        return actions

    def on_gone(self, cluster_id: int, now: int) -> list[BirthAction]:
        """That cluster is dissolved: what was expected of it is not to be waited for."""
        if self.accepted is not None and self.accepted.cluster_id == cluster_id:
            return self._give_up(self.accepted, now)
        if self._existing == cluster_id:
            self._existing = 0
            self._propose_at = now + self._timing.discovery_window_us
            return [Say("info", f"cluster {cluster_id:016x} is dissolved: looking for another")]
        return []

    def on_durable(self) -> list[BirthAction]:
        """What was remembered is on disk: the own acceptance counts."""
        if self.accepted is None:
            return []
        self._accepted_durable = True
        return self._maybe_exists()

    def on_deadline(self, now: int) -> list[BirthAction]:
        if self.accepted is not None:
            if now < self._offer_at:
                return []
            self._offer_at = now + self._timing.retry_us
            if exists := self._maybe_exists():
                return exists  # a sole voter that crashed after its acceptance was durable
            answered = (*self._agreed, *self._denied, self._self_id)
            return [
                Offer(voter, BirthOffer(self.accepted))
                for voter in self.accepted.ids
                if voter not in answered
            ]
        if now < self._propose_at:
            return []
        return self._maybe_propose(now)

    # --- steps --------------------------------------------------------------------------------

    def _maybe_propose(self, now: int) -> list[BirthAction]:
        self._propose_at = (
            now + self._timing.retry_us + self._random.randrange(self._timing.retry_us)
        )
        if self._existing:
            return []
        stale = now - 4 * self._timing.beacon_unjoined_us - self._timing.discovery_window_us
        self._blanks = {
            node: blank for node, blank in self._blanks.items() if blank.last_seen > stale
        }
        ready = [node for node, blank in self._blanks.items() if blank.expect in (0, self._expect)]
        found = sorted([*ready, self._self_id])
        if len(found) < self._expect:
            if now - self._told_waiting < self._timing.beacon_us:
                return []
            self._told_waiting = now
            return [Say("info", f"waiting for servers: {len(found)} of {self._expect} are here")]
        if found[0] != self._self_id:
            return []  # the lowest proposes; should it die, it grows stale here
        members = found[: self._expect] if self._expect else found
        voters = tuple(
            Voter(node, self._server_name if node == self._self_id else self._blanks[node].name)
            for node in members[: self._odd(len(members))]
        )
        cluster_id = ClusterId(self._random.randrange(1, 1 << 63))
        proposal = VoterSet(self._cluster_name, cluster_id, voters)
        return [
            Say("info", "proposing the cluster: " + ", ".join(each.name for each in voters)),
            *self._accept(proposal, now),
        ]

    def _accept(self, proposal: VoterSet, now: int) -> list[BirthAction]:
        self.accepted = proposal
        self._accepted_durable = False
        self._agreed, self._denied = [], []
        self._offer_at = now
        return [Remember(self.record())]

    def _refuse(self, source: NodeId, cluster_id: int) -> list[BirthAction]:
        if self._may_refuse_no_more():
            return []
        self._refused.append(cluster_id)
        return [
            Remember(self.record()),
            Answer(source, BirthAnswer(cluster_id, False, self.accepted)),
        ]

    def _may_refuse_no_more(self) -> bool:
        """Who accepts must be able to refuse for ever what it accepted."""
        return len(self._refused) >= self._limits.births_refused

    def _give_up(self, accepted: VoterSet, now: int) -> list[BirthAction]:
        """The accepted proposal cannot win any more: refuse it too, and be free again."""
        self._refused.append(accepted.cluster_id)
        self.accepted = None
        self._accepted_durable = False
        self._propose_at = now + self._random.randrange(self._timing.campaign_us)
        return [
            Say("info", "the proposed cluster cannot win any more; starting over"),
            Remember(self.record()),
        ]

    def _consider(self, rival: VoterSet, now: int) -> list[BirthAction]:
        usable = (
            not self._may_refuse_no_more()
            and rival.cluster_name == self._cluster_name
            and self._self_id in rival.ids
            and rival.cluster_id not in self._refused
            and self._well_formed(rival)
            and self._existing in (0, rival.cluster_id)
            and (not self._expect or len(rival.voters) == self._odd(self._expect))
        )
        return self._accept(rival, now) if usable else []

    def _maybe_exists(self) -> list[BirthAction]:
        accepted = self.accepted
        if accepted is None or not self._accepted_durable:
            return []
        if not is_quorum([accepted.ids], [*self._agreed, self._self_id]):
            return []
        return [Exists(accepted)]

    def _odd(self, members: int) -> int:
        return odd_voters(members, self._limits.voters_max)

    def _well_formed(self, proposal: VoterSet) -> bool:
        ids = proposal.ids
        return (
            0 < len(ids) <= self._limits.voters_max
            and len(ids) % 2 == 1
            and list(ids) == sorted(set(ids))
            and proposal.cluster_id > 0
        )
