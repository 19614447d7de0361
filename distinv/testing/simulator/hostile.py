"""Elections that do everything wrong: they must not break safety, nor stop progress for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distinv.election.api import (
    ElectionAction,
    ElectionContext,
    ElectionFactory,
    Nominate,
    SendElection,
)
from distinv.entry import Ballot, NodeId


class _Hostile:
    """Answers every call by `act`, and always has a deadline 10 ms ahead."""

    def __init__(self, context: ElectionContext) -> None:
        self.context = context
        self.members: tuple[NodeId, ...] = ()
        self._next = 0

    def act(self, now: int) -> Iterable[ElectionAction]:
        return ()

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        return self.act(now)

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        return self.act(now)

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        return self.act(now)

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        self.members = tuple(voters)
        return self.act(now)

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        self._next = now + 10_000
        return self.act(now)

    def deadline(self) -> int | None:
        return self._next


class AlwaysMe(_Hostile):
    """Nominates itself on every occasion."""

    def act(self, now: int) -> Iterable[ElectionAction]:
        return [Nominate(self.context.self_id)]


class Anybody(_Hostile):
    """Nominates somebody at random and sends noise to everybody."""

    def act(self, now: int) -> Iterable[ElectionAction]:
        random = self.context.random
        actions: list[ElectionAction] = [
            SendElection(member, random.randbytes(20)) for member in self.members
        ]
        if self.members:
            actions.append(Nominate(random.choice(self.members)))
        return actions


class Silent(_Hostile):
    """Never says anything: only the watchdog can help."""

    def deadline(self) -> int | None:
        return None


class Raising(_Hostile):
    """Fails on every call."""

    def act(self, now: int) -> Iterable[ElectionAction]:
        raise RuntimeError("this election is broken on purpose")


class Strangers(_Hostile):
    """Nominates nodes that do not exist."""

    def act(self, now: int) -> Iterable[ElectionAction]:
        return [Nominate(NodeId(self.context.random.randrange(1, 1 << 63)))]


HOSTILE: dict[str, ElectionFactory] = {
    "always-me": AlwaysMe,
    "anybody": Anybody,
    "silent": Silent,
    "raising": Raising,
    "strangers": Strangers,
}
