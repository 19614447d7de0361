"""What a server has to do with other clusters of its name, and with those that are no more.

A leader that might give way (`core/dissolution.py`) needs to know that the other cluster lives:
what its servers announce could be a recording, since nothing from another cluster is fresh. So
when it has heard it for a while it asks, and only an answer to its own question counts.

A server of a dissolved cluster begins anew as a blank one and remembers the cluster, to tell it
to those that were away: they could never find it out among themselves, as the others are gone.
They believe it when they hear no leader, and hold nothing of any client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import define, frozen

from distinv.config import Limits, Timing
from distinv.core.dissolution import gives_way_to, may_give_way
from distinv.core.events import ClusterGone, OtherClusterMet
from distinv.core.node import Node
from distinv.server.machine import Machine
from distinv.server.seldom import Seldom
from distinv.server.settings import Settings
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint, Incoming
from distinv.wire.messages import Beacon, ClusterDissolved, Encounter, Encountered


@frozen
class Dissolved:
    """A cluster that is no more."""

    cluster_id: int
    successor: int
    """The cluster that goes on instead; 0: not known."""


@define
class _Other:
    """Another cluster of this name that was heard."""

    first_heard: int
    last_heard: int
    nonce: int = 0
    """Of the question asked last, 0 before."""
    asked_at: int = 0


class Dissolving:
    """Belongs to one engine."""

    def __init__(
        self,
        *,
        node: Node,
        endpoint: Endpoint,
        settings: Settings,
        remembered: Sequence[Dissolved],
        timing: Timing,
        limits: Limits,
        random: Random,
        tell: Callable[[str, str], None],
    ) -> None:
        """`remembered`: the clusters this server has belonged to that are dissolved, oldest first.

        `tell(text, level)` takes a line for people.
        """
        self._node = node
        self._endpoint = endpoint
        self._settings = settings
        self.remembered = tuple(remembered)[-limits.dissolved_remembered :]
        self._gone = {each.cluster_id: each for each in self.remembered}
        self._timing = timing
        self._limits = limits
        self._random = random
        self._tell = tell
        self._others: dict[int, _Other] = {}
        self._told: Dissolved | None = None
        """What this server was told of its own cluster."""
        self._contradictions = Seldom(timing.alarm_us, 1)

    # --- who is heard -------------------------------------------------------------------------

    def heed(self, incoming: Incoming, beacon: Beacon, now: int) -> bool:
        """A server of this name announced itself; True when its cluster is known to be no more."""
        gone = self._gone.get(beacon.cluster_id)
        if gone is not None:
            self._show(gone, incoming, now)
            return True
        own = self._endpoint.cluster_id
        if not beacon.cluster_id:
            for each in self.remembered:  # it may wait for one of them
                self._show(each, incoming, now)
        elif own and beacon.cluster_id != own and beacon.leader:
            self._maybe_ask(incoming, beacon, now)
        return False

    def heed_seek(self, incoming: Incoming, now: int) -> None:
        """A client that still belongs to a cluster of this name that is no more is told."""
        gone = self._gone.get(incoming.cluster_id)
        if gone is not None:
            self._show(gone, incoming, now)

    def _show(self, gone: Dissolved, incoming: Incoming, now: int) -> None:
        message = ClusterDissolved(self._settings.cluster_name, gone.cluster_id, gone.successor)
        self._endpoint.send_to(incoming.address, encode(message), now)

    def _maybe_ask(self, incoming: Incoming, beacon: Beacon, now: int) -> None:
        """The first time a cluster is heard says little; ask it when it is heard again."""
        if not may_give_way(self._node):
            return
        timing, other = self._timing, self._others.pop(beacon.cluster_id, None)
        if other is None or now - other.last_heard > 4 * timing.beacon_us:
            if len(self._others) >= self._limits.servers_max:
                del self._others[next(iter(self._others))]
            self._others[beacon.cluster_id] = _Other(now, now)
            return
        self._others[beacon.cluster_id] = other
        other.last_heard = now
        wait_us = timing.beacon_unjoined_us
        if now - other.first_heard >= wait_us and now - other.asked_at >= wait_us:
            other.nonce, other.asked_at = self._random.randrange(1, 1 << 63), now
            question = Encounter(self._settings.cluster_name, other.nonce)
            self._endpoint.send_to(incoming.address, encode(question), now)

    def on_encounter(self, incoming: Incoming, message: Encounter, now: int) -> None:
        """Only a cluster that has a leader, and is not about to end itself, is worth joining."""
        node, own = self._node, self._endpoint.cluster_id
        if message.cluster_name != self._settings.cluster_name or not own:
            return
        if node.leader is None or node.birth is not None or node.log.dissolved is not None:
            return
        answer = Encountered(message.nonce, own, self._settings.server_name, node.touched)
        self._endpoint.send_to(incoming.address, encode(answer), now)

    def on_encountered(self, message: Encountered, now: int) -> OtherClusterMet | None:
        other = self._others.get(message.cluster_id)
        if other is None or not other.nonce or other.nonce != message.nonce:
            return None
        if now - other.asked_at > self._timing.beacon_us:
            return None
        return OtherClusterMet(message.cluster_id, message.server_name, message.touched)

    # --- the end of the own cluster -----------------------------------------------------------

    def on_told(self, incoming: Incoming, message: ClusterDissolved) -> ClusterGone | None:
        """Somebody who is no member says that a cluster is dissolved."""
        own, node = self._endpoint.cluster_id, self._node
        named = message.cluster_name == self._settings.cluster_name and message.cluster_id
        if not named or incoming.cluster_id == message.cluster_id:
            return None
        if node.birth is not None:
            return ClusterGone(message.cluster_id)
        if message.cluster_id == own and not node.hears_leader():
            self._told = Dissolved(own, message.successor)
        return None

    def verdict(self, machine: Machine, now: int) -> Dissolved | None:
        """This server's cluster is no more, and nobody needs what it has."""
        own = self._endpoint.cluster_id
        successor = gives_way_to(self._node)
        if successor is not None:
            found = Dissolved(own, successor.cluster_id)
        elif self._told is not None:
            found, self._told = self._told, None  # who says so says it again
        else:
            return None
        if machine.touched:
            self._contradict(found, now)
            return None
        return found

    def _contradict(self, found: Dissolved, now: int) -> None:
        if not self._contradictions.may_say(found.cluster_id, now):
            return
        self._tell(
            f"cluster {found.cluster_id:016x} is said to be dissolved, which only happens to one "
            "that holds nothing of any client; this server does. Nothing is done: look at what "
            "the servers hold (distinv status), and keep their data directories",
            "error",
        )
