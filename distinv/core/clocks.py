"""May this leader stamp from its own clock?

Everything that expires does so on logged time, so one wrong clock must not move it. A leader
stamps from its clock only once the clocks of a majority of *all* voters, its own among them, are
known (promises and acknowledgements carry them) to be near it; otherwise it repeats the log's last
time. What is known of another clock is how far it is from this process's monotonic time, which
nobody sets: so a clock that is set anew, this server's or another's, differs from all at once, and
does not take what was known with it. One voter that differs is not enough to silence it, nor one
that is silent to believe it: of a leader and the only follower that it has heard so far, each may
be the one that is wrong.
"""

from __future__ import annotations

from distinv.core.quorum import VoterSets, majority
from distinv.entry import NodeId


class Clocks:
    def __init__(self, self_id: NodeId, max_skew_us: int) -> None:
        self._self_id = self_id
        self._max_skew_us = max_skew_us
        self._offsets: dict[NodeId, int] = {self_id: 0}
        """Of each clock from this process's monotonic time."""

    @property
    def own_offset_us(self) -> int:
        return self._offsets[self._self_id]

    @own_offset_us.setter
    def own_offset_us(self, offset_us: int) -> None:
        self._offsets[self._self_id] = offset_us

    def begin(self) -> None:
        """A campaign begins: what was known before may be long past."""
        self._offsets = {self._self_id: self.own_offset_us}

    def observe(self, node: NodeId, clock_us: int, now: int) -> None:
        """The clock of `node`, as it was at most a round trip ago."""
        self._offsets[node] = clock_us - now

    def forget(self, node: NodeId) -> None:
        """`node` is not served any more: learners come and go under ever new ids."""
        self._offsets.pop(node, None)

    def _far(self, node: NodeId) -> bool:
        own = self.own_offset_us
        return abs(self._offsets.get(node, own) - own) > self._max_skew_us

    def differing(self, sets: VoterSets) -> tuple[NodeId, ...]:
        """Voters whose clock is known to be too far from this one's."""
        return tuple(sorted({node for voters in sets for node in voters if self._far(node)}))

    def outvoted(self, sets: VoterSets) -> bool:
        """A majority of all voters has another time: this clock is the wrong one."""
        return any(
            sum(self._far(node) for node in voters) >= majority(len(voters)) for voters in sets
        )

    def agree_with_majority(self, node: NodeId, sets: VoterSets) -> bool:
        """The clock of `node` is known and near those of a majority of all voters."""
        own = self._offsets.get(node)
        return own is not None and all(
            sum(
                abs(self._offsets[other] - own) <= self._max_skew_us
                for other in voters
                if other in self._offsets
            )
            >= majority(len(voters))
            for voters in sets
        )

    def trusted(self, sets: VoterSets) -> bool:
        """This clock is known to be near those of a majority of all voters."""
        return bool(sets) and self.agree_with_majority(self._self_id, sets)
