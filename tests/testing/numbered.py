"""A small multicast over group datagrams, correct and slow, to be spoilt in the tests of the suite.

A sender numbers its messages and sends each once, to the group. Who misses one asks for it over
the link, and is answered over the link; so does who has not heard the last one, which the sender
announces until all have had time. A peer begins where the sender says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec
from attrs import define, field

from distinv.entry import NodeId
from distinv.multicast.api import (
    Deliver,
    Group,
    MulticastAction,
    MulticastContext,
    Unicast,
)

KEPT = 200
"""Messages kept for those who miss one, and kept waiting for one that is missing."""
ROUND_US = 20_000
ROUNDS = 20
GROUP_BYTES_MAX = 900

Actions: TypeAlias = Iterable[MulticastAction]


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=1):
    life: int
    number: int


class Data(msgspec.Struct, frozen=True, array_like=True, tag=2):
    life: int
    number: int
    body: bytes


class Last(msgspec.Struct, frozen=True, array_like=True, tag=3):
    life: int
    number: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=4):
    life: int
    number: int


encode = msgspec.msgpack.Encoder().encode
decoder: msgspec.msgpack.Decoder[Begin | Data | Last | Ask] = msgspec.msgpack.Decoder(
    Begin | Data | Last | Ask
)


@define
class Source:
    """What is known of one sender."""

    life: int
    next: int
    last: int
    waiting: dict[int, bytes] = field(factory=dict)


class Numbered:
    def __init__(self, context: MulticastContext) -> None:
        self.life = context.random.getrandbits(32)
        self.number = 0
        self.kept: dict[int, bytes] = {}
        self.begun: dict[NodeId, None] = {}
        self.sources: dict[NodeId, Source] = {}
        self.rounds = 0
        self.due: int | None = None

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        self.number += 1
        self.kept[self.number] = body
        self.kept.pop(self.number - KEPT, None)
        self.rounds, self.due = ROUNDS, self.due or now + ROUND_US
        actions: list[MulticastAction] = []
        for peer in peers:
            if peer not in self.begun:
                self.begun[peer] = None
                actions.append(Unicast(peer, encode(Begin(self.life, self.number))))
        data = encode(Data(self.life, self.number, body))
        if len(body) <= GROUP_BYTES_MAX:
            return [*actions, Group(data)]
        return [*actions, *(Unicast(peer, data) for peer in peers)]

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        try:
            message = decoder.decode(body)
        except msgspec.MsgspecError:
            return ()
        if isinstance(message, Ask):
            kept = self.kept.get(message.number) if message.life == self.life else None
            number = message.number
            return [] if kept is None else [Unicast(source, encode(Data(self.life, number, kept)))]
        if isinstance(message, Begin):
            self.sources[source] = Source(message.life, message.number, message.number - 1)
            return ()
        known = self.sources.get(source)
        if known is None or known.life != message.life:
            return ()
        if not known.next <= message.number < known.next + KEPT:
            return ()
        known.last = max(known.last, message.number)
        if isinstance(message, Data):
            known.waiting[message.number] = message.body
        self.due = self.due or now + ROUND_US
        return self.deliver(source, known)

    def deliver(self, source: NodeId, known: Source) -> list[MulticastAction]:
        actions: list[MulticastAction] = []
        while known.next in known.waiting:
            actions.append(Deliver(source, known.waiting.pop(known.next)))
            known.next += 1
        return actions

    def on_peer_lost(self, peer: NodeId, now: int) -> Actions:
        self.begun.pop(peer, None)
        return ()

    def deadline(self) -> int | None:
        return self.due

    def on_deadline(self, now: int) -> Actions:
        actions: list[MulticastAction] = []
        if self.rounds:
            self.rounds -= 1
            actions.append(Group(encode(Last(self.life, self.number))))
        for source, known in self.sources.items():
            if known.next <= known.last and known.next not in known.waiting:
                actions.append(Unicast(source, encode(Ask(known.life, known.next))))
        self.due = now + ROUND_US if actions else None
        return actions
