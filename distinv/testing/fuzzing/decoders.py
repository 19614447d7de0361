"""Targets: the functions that turn bytes into values."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from distinv.config import Timing
from distinv.election import bully, ring
from distinv.election.api import ElectionContext, ElectionFactory
from distinv.entry import Ballot, NodeId, Voter, VoterSet, encode_voters
from distinv.errors import BadDatagram, DistinvError
from distinv.inventory import queries
from distinv.inventory.calls import Ask, Call
from distinv.inventory.commands import decode_outcome, encode_outcome
from distinv.multicast.api import Deliver, MulticastContext
from distinv.multicast.fanout import fanout
from distinv.testing.fuzzing.corpus import captured, captured_seal, questions, work
from distinv.testing.fuzzing.making import KINDS, Maker, Pool
from distinv.testing.fuzzing.scene import tight
from distinv.testing.fuzzing.target import Decoding, Fuzz, Target
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.frame import (
    HEADER_BYTES,
    Ack,
    Announce,
    Data,
    Hello,
    Refuse,
    Unordered,
    encode_ack,
    encode_announce,
    encode_data,
    encode_hello,
    encode_refuse,
    encode_unordered,
    parse_chunks_untrusted,
    parse_header_untrusted,
    version_untrusted,
)
from distinv.wire.seal import KeySeal, PlainSeal, Seal
from distinv.wire.stream import StreamReader

# --- frames -------------------------------------------------------------------------------------


def _header(data: bytes) -> None:
    version_untrusted(data)
    header = parse_header_untrusted(data)
    assert len(header.fingerprint) == 4
    assert 0 < header.sender < 2**63
    assert header.counter > 0


def _chunks(data: bytes) -> None:
    chunks = parse_chunks_untrusted(data)
    again = b"".join(_ENCODERS[type(chunk)](chunk) for chunk in chunks)
    assert again == data, "what was read is what was there"


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    Unordered: lambda chunk: encode_unordered(chunk.body),
    Data: lambda chunk: encode_data(chunk.epoch, chunk.seq, chunk.payload),
    Ack: lambda chunk: encode_ack(chunk.epoch, chunk.next_seq, chunk.missing),
    Announce: lambda chunk: encode_announce(chunk.epoch, chunk.next_seq),
    Hello: lambda chunk: encode_hello(
        chunk.challenge, chunk.echo, chunk.wants_answer, chunk.speaks
    ),
    Refuse: lambda chunk: encode_refuse(chunk.epoch),
}


def _make_seals(seed: int) -> Fuzz:
    """Datagrams of the right key, of another, and in clear; opened by both seals."""
    seals = (PlainSeal(), KeySeal(bytes(32)), captured_seal())
    examples = [*captured(True).datagrams, *captured(False).datagrams]
    return Decoding(seed, examples, lambda data: _open(data, seals), BadDatagram, packed=False)


def _open(data: bytes, seals: tuple[Seal, ...]) -> None:
    header = parse_header_untrusted(data)
    head, sealed = data[:HEADER_BYTES], data[HEADER_BYTES:]
    opened = 0
    for seal in seals:
        try:
            body = seal.open_untrusted(header.sender_boot, header.counter, head, sealed)
        except BadDatagram:
            continue
        opened += 1
        assert seal.seal(header.sender_boot, header.counter, head, body) == sealed
    if not opened:
        raise BadDatagram("sealed by nobody here")


_STREAM_MESSAGE_MAX = 2_000


def _stream(data: bytes) -> None:
    """The first byte says in pieces of which size the rest arrives."""
    size = data[0] + 1 if data else 1
    whole: list[bytes] = []
    end = StreamReader(_STREAM_MESSAGE_MAX)
    reader, bodies = StreamReader(_STREAM_MESSAGE_MAX), list[bytes]()
    for at in range(1, len(data), size):
        reader.feed(data[at : at + size], bodies)
        assert len(reader._partial) <= _STREAM_MESSAGE_MAX + 4 + size
    assert all(len(body) <= _STREAM_MESSAGE_MAX for body in bodies)
    try:
        stop = end._split_untrusted(data[1:], whole)
        assert stop == sum(len(body) + 4 for body in whole)
    finally:
        assert whole == bodies, "pieces make no difference"


# --- messages -----------------------------------------------------------------------------------


def _message(data: bytes) -> None:
    message = decode_untrusted(data)
    again = encode(message)
    assert decode_untrusted(again) == message, "a message survives being sent on"


def made_messages(seed: int, count: int) -> list[bytes]:
    """Messages of every type, right in form."""
    maker = Maker(Random(seed), Pool())
    return [encode(maker.make(kind)) for kind in KINDS for _ in range(count)]


def _make_messages(seed: int) -> Fuzz:
    examples = [*captured(False).messages, *captured(False, "ring").messages]
    return Decoding(seed, [*examples, *made_messages(seed, 3)], _message, BadDatagram)


# --- plugins ------------------------------------------------------------------------------------


class _Election:
    """A live election that also gets told of suspicions, leaders and deadlines."""

    def __init__(
        self, factory: ElectionFactory, decode: Callable[[bytes], object], seed: int
    ) -> None:
        self._random = Random(seed)
        self._decode = decode
        self._election = factory(ElectionContext(NodeId(3), Random(seed + 1), Timing()))
        self._now = 0
        self._election.on_members([NodeId(node) for node in range(1, 6)], 0)

    def take(self, data: bytes) -> None:
        election, random = self._election, self._random
        self._now += random.randrange(30_000)
        chance = random.random()
        if chance < 0.05:
            self._obey(election.on_suspect(NodeId(5), self._now))
        elif chance < 0.1:
            self._obey(election.on_leader(NodeId(4), Ballot(2, 4), self._now))
        due = election.deadline()
        if due is not None and due <= self._now:
            self._obey(election.on_deadline(self._now))
        self._obey(election.on_message(NodeId(random.randrange(1, 7)), data, self._now))
        self._decode(data)

    def _obey(self, actions: Any) -> None:
        assert len(list(actions)) <= 16, "one message asks for a handful of others"


def _small_tuples(seed: int, tags: int, fields: int) -> list[bytes]:
    """Messages of an election, and arrays that look like them."""
    random = Random(seed)
    numbers = (0, 1, 2, 3, 4, 5, 2**32, 2**63 - 1)
    return [
        msgspec.msgpack.encode([tag, *(random.choice(numbers) for _ in range(count))])
        for tag in range(1, tags + 2)
        for count in range(fields + 2)
        for _ in range(4)
    ]


def _make_bully(seed: int) -> Fuzz:
    election = _Election(bully.Bully, bully.decode_untrusted, seed)
    examples = [*captured(False).elections, *_small_tuples(seed, 3, 1)]
    return Decoding(seed, examples, election.take, BadDatagram)


def _make_ring(seed: int) -> Fuzz:
    election = _Election(ring.Ring, ring.decode_untrusted, seed)
    examples = [*captured(False, "ring").elections, *_small_tuples(seed, 3, 4)]
    return Decoding(seed, examples, election.take, BadDatagram)


def _make_multicast(seed: int) -> Fuzz:
    config = tight()
    strategy = fanout(MulticastContext(NodeId(1), Random(seed), config.timing, config.limits))

    def take(data: bytes) -> None:
        for action in strategy.on_message(NodeId(2), data, 0):
            assert isinstance(action, Deliver)
            decode_untrusted(action.body)

    return Decoding(seed, captured(False).messages, take, BadDatagram)


# --- what servers answer ------------------------------------------------------------------------

_READERS: tuple[Call[Any] | Ask[Any], ...] = (*work(), *questions())


def read_everything(data: bytes) -> None:
    """Read the bytes as the answer to every call there is. Raises DistinvError when none can."""
    read, refusal = 0, DistinvError("there is nobody to read it")
    for reader in _READERS:
        try:
            reader.value(data)
            read += 1
        except DistinvError as error:
            refusal = error
    if not read:
        raise refusal


def _outcome(data: bytes) -> None:
    outcome = decode_outcome(data)
    assert decode_outcome(encode_outcome(outcome)) == outcome
    read_everything(data)


def _answer(data: bytes) -> None:
    answer = queries.decode_answer(data)
    assert queries.decode_answer(queries.encode_answer(answer)) == answer
    read_everything(data)


# --- entries ------------------------------------------------------------------------------------


def voter_payloads() -> list[bytes]:
    """Payloads of voter entries."""
    return [
        encode_voters(VoterSet("shop", 7, tuple(Voter(node, f"s{node}") for node in nodes)))
        for nodes in ((1,), (1, 2, 3), (5, 4, 3, 2, 1), ())
    ]


TARGETS = (
    Target(
        "header",
        "the clear head of a datagram",
        ("wire.frame.version_untrusted", "wire.frame.parse_header_untrusted"),
        lambda seed: Decoding(
            seed, captured(False).datagrams, _header, BadDatagram, packed=False
        ),
        50_000,
        50_000,
    ),
    Target(
        "chunks",
        "the opened body of a datagram",
        ("wire.frame.parse_chunks_untrusted",),
        lambda seed: Decoding(seed, captured(False).bodies, _chunks, BadDatagram, packed=False),
        50_000,
        50_000,
    ),
    Target(
        "seals",
        "sealed bodies, without a key and with one",
        (
            "wire.seal.Seal.open_untrusted",
            "wire.seal.PlainSeal.open_untrusted",
            "wire.seal.KeySeal.open_untrusted",
        ),
        _make_seals,
        50_000,
        50_000,
    ),
    Target(
        "stream",
        "the byte stream of a link, in pieces of any size",
        ("wire.stream.StreamReader._split_untrusted",),
        lambda seed: Decoding(
            seed, _streams(), _stream, BadDatagram, packed=False
        ),
        50_000,
        50_000,
    ),
    Target(
        "messages",
        "message bodies of every type",
        ("wire.codec.decode_untrusted",),
        _make_messages,
        50_000,
        50_000,
    ),
    Target(
        "bully",
        "what a peer's bully election says, to a live one",
        ("election.bully.decode_untrusted",),
        _make_bully,
        50_000,
        50_000,
    ),
    Target(
        "ring",
        "what a peer's ring election says, to a live one",
        ("election.ring.decode_untrusted",),
        _make_ring,
        50_000,
        50_000,
    ),
    Target(
        "multicast", "what a peer's multicast hands on", (), _make_multicast, 50_000, 50_000
    ),
    Target(
        "outcomes",
        "a server's outcome of a command, as every call of a client reads it",
        (),
        lambda seed: Decoding(seed, captured(False).outcomes, _outcome, DistinvError),
        20_000,
        20_000,
    ),
    Target(
        "answers",
        "a server's answer to a question, as every question of a client reads it",
        (),
        lambda seed: Decoding(seed, captured(False).answers, _answer, DistinvError),
        20_000,
        20_000,
    ),
)  # fmt: skip


def _streams() -> list[bytes]:
    """Streams of real messages, behind a byte that says how they are cut."""
    found = []
    bodies = captured(False).messages
    for start in range(0, len(bodies), 5):
        stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies[start : start + 5])
        found.append(bytes([start * 7 % 256]) + stream)
    return found
