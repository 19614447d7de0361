"""A handful of servers that multicast to each other: no sockets, no real time, one seed.

Links between two of them are reliable and in order until they are reset; datagrams to the group
are lost, repeated and reordered. Everything sent and delivered is noted, per sender and hearer,
and `check` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.multicast.api import (
    Deliver,
    Group,
    Multicast,
    MulticastAction,
    MulticastContext,
    MulticastFactory,
    Unicast,
)
from distinv.testing.conformance.machines import Machines, shown

LATENCY_US = 300
GROUP_BODY_BYTES_MAX = 1_100
"""What of a group's datagram is left to the multicast; a larger one is lost."""


class Assembly(Machines[Multicast, MulticastAction]):
    """Members with the ids 1..`count`."""

    def __init__(
        self,
        factory: MulticastFactory,
        count: int,
        *,
        seed: int = 0,
        loss: float = 0.0,
        reordering: bool = False,
    ) -> None:
        super().__init__(seed)
        self.loss = loss
        self.reordering = reordering
        self._sent: dict[tuple[int, int], list[list[bytes]]] = {}
        """Per sender and hearer the bodies sent, a list for each time between two resets."""
        self._delivered: dict[tuple[int, int], list[bytes]] = {}
        self._bodies: dict[bytes, None] = {}
        """What the multicasts sent."""
        self._links: dict[tuple[int, int], int] = {}
        """How often each link was reset: what was sent before does not arrive."""
        for number in range(1, count + 1):
            chance = Random(self.random.getrandbits(64))
            context = MulticastContext(NodeId(number), chance, Timing(), Limits())
            self.machines[NodeId(number)] = factory(context)

    # --- what happens -------------------------------------------------------------------------

    def send(self, source: int, body: bytes, peers: Sequence[int] | None = None) -> None:
        """`source` multicasts to `peers`, all others by default."""
        ids = self.machines if peers is None else map(NodeId, peers)
        others = [peer for peer in ids if peer != source]
        self.note(f"{source} multicasts {shown(body)} to {others}")
        for peer in others:
            self._sent.setdefault((source, peer), [[]])[-1].append(body)
        self.call(source, lambda each: each.on_send(others, body, self.now))

    def send_many(self, count: int) -> None:
        """Everybody multicasts `count` messages, a little time apart."""
        for number in range(count):
            for source in self.machines:
                body = b"%d of %d at %d" % (number, source, self.now)
                self.at(self.now + number * 50, partial(self.send, source, body))

    def reset(self, source: int, to: int) -> None:
        """What is under way from `source` to `to` is gone, and `source` is told so."""
        if source == to:
            return
        self.note(f"the link from {source} to {to} is reset")
        self._links[source, to] = self._links.get((source, to), 0) + 1
        self._sent.setdefault((source, to), [[]]).append([])
        self.call(source, lambda each: each.on_peer_lost(NodeId(to), self.now))

    # --- what is checked ----------------------------------------------------------------------

    def check(self) -> None:
        """Everybody has heard, of each sender, beginnings of what was sent between two resets."""
        for (source, to), delivered in self._delivered.items():
            sent = self._sent.get((source, to), [[]])
            pair = f"from {source} to {to}"
            every = Counter(body for part in sent for body in part)
            for body, count in Counter(delivered).items():
                assert body in every, f"{pair}: {shown(body)} was never sent; {self.tale()}"
                assert count <= every[body], (
                    f"{pair}: {shown(body)} was sent {every[body]} times and delivered {count} "
                    f"times; {self.tale()}"
                )
            assert _are_beginnings(delivered, sent), (
                f"{pair}: delivered out of order or with a gap: "
                f"{[shown(body) for body in delivered[-8:]]}; {self.tale()}"
            )

    def check_complete(self) -> None:
        """Everything sent was delivered."""
        for (source, to), sent in self._sent.items():
            expected = [body for part in sent for body in part]
            delivered = self._delivered.get((source, to), [])
            assert delivered == expected, (
                f"from {source} to {to}: {len(expected)} messages were sent without any fault, "
                f"and {len(delivered)} delivered; {self.tale()}"
            )

    def check_arrived(self, source: int, to: int, bodies: Sequence[bytes]) -> None:
        """These were delivered."""
        delivered = self._delivered.get((source, to), [])
        missing = [body for body in bodies if body not in delivered]
        assert not missing, f"from {source} to {to}: {missing} never arrive; {self.tale()}"

    def bodies(self) -> list[bytes]:
        """What the multicasts really sent, each once."""
        return list(self._bodies)[:100]

    # --- how it happens -----------------------------------------------------------------------

    def act(self, source: NodeId, actions: list[MulticastAction]) -> None:
        for action in actions:
            if isinstance(action, Unicast):
                self._check_body(action.body)
                self._unicast(source, action)
            elif isinstance(action, Group):
                self._check_body(action.body)
                self._group(source, action)
            else:
                assert isinstance(action, Deliver), (
                    f"{action!r} is none of Unicast, Group, Deliver; {self.tale()}"
                )
                self._deliver(source, action)

    def _check_body(self, body: object) -> None:
        assert isinstance(body, bytes), f"a body is bytes, not {body!r}; {self.tale()}"
        self._bodies[body] = None

    def _unicast(self, source: NodeId, action: Unicast) -> None:
        to, life = action.to, self._links.get((source, action.to), 0)
        assert to in self.machines and to != source, (  # noqa: PT018
            f"{source} sends to {to}, who is no peer; {self.tale()}"
        )

        def arrive() -> None:
            if self._links.get((source, to), 0) == life:
                self._hear(source, to, action.body)

        self.at(self.now + LATENCY_US, arrive)

    def _group(self, source: NodeId, action: Group) -> None:
        if len(action.body) > GROUP_BODY_BYTES_MAX:
            return
        for to in self.machines:
            copies = 2 if self.reordering and self.random.random() < 0.1 else 1
            for _ in range(copies if to != source else 0):
                if self.random.random() >= self.loss:
                    delay_us = LATENCY_US + self.random.randrange(2_000 if self.reordering else 1)
                    arrive = partial(self._hear, source, to, action.body)
                    self.at(self.now + delay_us, arrive)

    def _hear(self, source: NodeId, to: NodeId, body: bytes) -> None:
        self.note(f"{to} gets {shown(body)} of {source}")
        self.call(to, lambda each: each.on_message(source, body, self.now))

    def _deliver(self, to: NodeId, action: Deliver) -> None:
        self.note(f"{to} delivers {shown(action.body)} of {action.source}")
        assert action.source != to, f"{to} delivers a message of its own; {self.tale()}"
        self._delivered.setdefault((action.source, to), []).append(action.body)


def _are_beginnings(delivered: Sequence[bytes], parts: Sequence[Sequence[bytes]]) -> bool:
    """Whether `delivered` is a beginning of each of `parts`, one behind the other.

    Equal bodies leave a choice of where one beginning ends, so all choices are followed.
    """
    reached = {0}
    for part in parts:
        follow = set(reached)
        for start in sorted(reached):
            for body in part:
                if start >= len(delivered) or delivered[start] != body:
                    break
                start += 1
                follow.add(start)
        reached = follow
    return len(delivered) in reached
