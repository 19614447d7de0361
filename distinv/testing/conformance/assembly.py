"""A handful of servers that multicast to each other: no sockets, no real time, one seed.

Links between two of them are reliable and in order until they are reset; datagrams to the group
are lost, repeated and reordered. Everything sent and delivered is noted, per sender and hearer,
and `check` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
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

LATENCY_US = 300
GROUP_BODY_BYTES_MAX = 1_100
"""What of a group's datagram is left to the multicast; a larger one is lost."""

_STEPS_MAX = 50_000
_TALE_LINES = 16


class Assembly:
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
        self.random = Random(seed)
        self.loss = loss
        self.reordering = reordering
        self.now = 0
        self.lines: list[str] = []
        self.members: dict[NodeId, Multicast] = {}
        self._sent: dict[tuple[int, int], list[list[bytes]]] = {}
        """Per sender and hearer the bodies sent, a list for each time between two resets."""
        self._delivered: dict[tuple[int, int], list[bytes]] = {}
        self._bodies: dict[bytes, None] = {}
        """What the multicasts sent."""
        self._links: dict[tuple[int, int], int] = {}
        """How often each link was reset: what was sent before does not arrive."""
        self._order = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        for number in range(1, count + 1):
            chance = Random(self.random.getrandbits(64))
            context = MulticastContext(NodeId(number), chance, Timing(), Limits())
            self.members[NodeId(number)] = factory(context)

    # --- what happens -------------------------------------------------------------------------

    def send(self, source: int, body: bytes, peers: Sequence[int] | None = None) -> None:
        """`source` multicasts to `peers`, all others by default."""
        ids = self.members if peers is None else map(NodeId, peers)
        others = [peer for peer in ids if peer != source]
        self._note(f"{source} multicasts {_shown(body)} to {others}")
        for peer in others:
            self._sent.setdefault((source, peer), [[]])[-1].append(body)
        self.call(source, lambda each: each.on_send(others, body, self.now))

    def send_many(self, count: int) -> None:
        """Everybody multicasts `count` messages, a little time apart."""
        for number in range(count):
            for source in self.members:
                body = b"%d of %d at %d" % (number, source, self.now)
                self._at(self.now + number * 50, partial(self.send, source, body))

    def reset(self, source: int, to: int) -> None:
        """What is under way from `source` to `to` is gone, and `source` is told so."""
        if source == to:
            return
        self._note(f"the link from {source} to {to} is reset")
        self._links[source, to] = self._links.get((source, to), 0) + 1
        self._sent.setdefault((source, to), [[]]).append([])
        self.call(source, lambda each: each.on_peer_lost(NodeId(to), self.now))

    def run(self, until: int, *, late_us: int = 0) -> None:
        """Step messages and deadlines, these `late_us` after their time, up to `until`."""
        steps = 0
        while (step := self._next(late_us)) is not None and step[0] <= until:
            steps += 1
            assert steps <= _STEPS_MAX, f"more than {_STEPS_MAX} messages and deadlines; " + (
                self.tale()
            )
            self.now = max(self.now, step[0])
            step[1]()
        self.now = until

    # --- what is checked ----------------------------------------------------------------------

    def check(self) -> None:
        """Everybody has heard, of each sender, beginnings of what was sent between two resets."""
        for (source, to), delivered in self._delivered.items():
            sent = self._sent.get((source, to), [[]])
            pair = f"from {source} to {to}"
            every = Counter(body for part in sent for body in part)
            for body, count in Counter(delivered).items():
                assert body in every, f"{pair}: {_shown(body)} was never sent; {self.tale()}"
                assert count <= every[body], (
                    f"{pair}: {_shown(body)} was sent {every[body]} times and delivered {count} "
                    f"times; {self.tale()}"
                )
            assert _are_beginnings(delivered, sent), (
                f"{pair}: delivered out of order or with a gap: "
                f"{[_shown(body) for body in delivered[-8:]]}; {self.tale()}"
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

    def tale(self) -> str:
        return "\n".join(["what happened:", *self.lines[-_TALE_LINES:]])

    # --- how it happens -----------------------------------------------------------------------

    def call(
        self, node: int, ask: Callable[[Multicast], Iterable[MulticastAction]]
    ) -> list[MulticastAction]:
        """Call one multicast as the engine does, and carry out what it returns."""
        source = NodeId(node)
        returned = ask(self.members[source])
        assert returned is not None, f"it returned None instead of no actions; {self.tale()}"
        actions = list(returned)
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
        return actions

    def _check_body(self, body: object) -> None:
        assert isinstance(body, bytes), f"a body is bytes, not {body!r}; {self.tale()}"
        self._bodies[body] = None

    def _unicast(self, source: NodeId, action: Unicast) -> None:
        to, life = action.to, self._links.get((source, action.to), 0)
        assert to in self.members and to != source, (  # noqa: PT018
            f"{source} sends to {to}, who is no peer; {self.tale()}"
        )

        def arrive() -> None:
            if self._links.get((source, to), 0) == life:
                self._hear(source, to, action.body)

        self._at(self.now + LATENCY_US, arrive)

    def _group(self, source: NodeId, action: Group) -> None:
        if len(action.body) > GROUP_BODY_BYTES_MAX:
            return
        for to in self.members:
            copies = 2 if self.reordering and self.random.random() < 0.1 else 1
            for _ in range(copies if to != source else 0):
                if self.random.random() >= self.loss:
                    delay_us = LATENCY_US + self.random.randrange(2_000 if self.reordering else 1)
                    arrive = partial(self._hear, source, to, action.body)
                    self._at(self.now + delay_us, arrive)

    def _hear(self, source: NodeId, to: NodeId, body: bytes) -> None:
        self._note(f"{to} gets {_shown(body)} of {source}")
        self.call(to, lambda each: each.on_message(source, body, self.now))

    def _deliver(self, to: NodeId, action: Deliver) -> None:
        self._note(f"{to} delivers {_shown(action.body)} of {action.source}")
        assert action.source != to, f"{to} delivers a message of its own; {self.tale()}"
        self._delivered.setdefault((action.source, to), []).append(action.body)

    def _at(self, time: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._waiting, (time, self._order, happen))

    def _next(self, late_us: int) -> tuple[int, Callable[[], None]] | None:
        best: tuple[int, Callable[[], None]] | None = None
        for node, multicast in self.members.items():
            due = multicast.deadline()
            assert due is None or isinstance(due, int), (
                f"a deadline is an int of microseconds or None, not {due!r}; {self.tale()}"
            )
            if due is not None and (best is None or due + late_us < best[0]):
                best = (due + late_us, partial(self._remind, node))
        if self._waiting and (best is None or self._waiting[0][0] <= best[0]):
            return self._waiting[0][0], self._take_waiting
        return best

    def _take_waiting(self) -> None:
        heappop(self._waiting)[2]()

    def _remind(self, node: NodeId) -> None:
        self.call(node, lambda each: each.on_deadline(self.now))
        due = self.members[node].deadline()
        assert due is None or due > self.now, (
            f"{node}'s deadline is {due} after on_deadline({self.now}): it is due for ever; "
            + self.tale()
        )

    def _note(self, line: str) -> None:
        self.lines.append(f"  {self.now / 1000:9.3f} ms  {line}")


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


def _shown(body: bytes) -> str:
    return repr(body) if len(body) <= 32 else f"{body[:24]!r}… ({len(body)} bytes)"
