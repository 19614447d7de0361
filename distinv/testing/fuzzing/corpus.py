"""What was really sent: datagrams and their contents, taken from a short simulated run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from attrs import define, field

from distinv.errors import BadDatagram
from distinv.inventory import calls
from distinv.inventory.calls import Ask, Call
from distinv.testing.fuzzing.scene import Client, Net, Server, born
from distinv.wire import messages
from distinv.wire.codec import decode_untrusted
from distinv.wire.frame import (
    HEADER_BYTES,
    Data,
    Unordered,
    parse_chunks_untrusted,
    parse_header_untrusted,
)
from distinv.wire.seal import Seal
from distinv.wire.stream import StreamReader

PER_KIND_MAX = 60
"""Examples kept of one kind of message; a run sends thousands of heartbeats."""
DATAGRAMS_MAX = 2_000


@define
class Corpus:
    """Examples, each once, in the order in which they were first seen."""

    datagrams: list[bytes] = field(factory=list)
    bodies: list[bytes] = field(factory=list)
    """Opened bodies of datagrams: chunks."""
    messages: list[bytes] = field(factory=list)
    commands: list[bytes] = field(factory=list)
    queries: list[bytes] = field(factory=list)
    outcomes: list[bytes] = field(factory=list)
    answers: list[bytes] = field(factory=list)
    elections: list[bytes] = field(factory=list)
    """Bodies of the election's own messages."""
    payloads: list[bytes] = field(factory=list)
    """Of log entries: voter sets and batches."""


@cache
def captured(sealed: bool, election: str = "bully") -> Corpus:
    """Of a cluster's birth, work, the death and the return of its leader, and more work."""
    net = Net(1, sealed=sealed)
    net.recorded = []
    servers = born(net, 3, election)
    client = Client(net, 1)
    for call in work():
        client.session.submit(call.encode(), net.now, net.now + 5_000_000)
    net.run(300_000)
    for ask in questions():
        client.session.query(ask.encode(), net.now, net.now + 5_000_000)
    client.session.query(questions()[0].encode(), net.now, net.now + 1_000, min_seq=1)
    client.session.status(net.now, net.now + 5_000_000)
    client.session.end_session(4_097, net.now, net.now + 5_000_000)
    net.run(300_000)
    leader = next(each for each in servers if each.engine.node.serving)
    disk = leader.crash()
    net.run(1_500_000)
    client.session.submit(calls.receive({"apple": 1}).encode(), net.now, net.now + 5_000_000)
    net.run(500_000)
    Server(net, leader.number, expect=3, election=election, disk=disk)
    net.run(1_000_000)
    _grow_and_shrink(net, client, election)
    return _sorted_out(net.recorded, net.seal())


def _grow_and_shrink(net: Net, client: Client, election: str) -> None:
    """A server comes that needs a snapshot, is wished a vote, and leaves."""
    for _ in range(2 * net.config.limits.log_keep_entries):
        client.session.submit(calls.receive({"apple": 1}).encode(), net.now, net.now + 5_000_000)
        client.wake(net.now)
        net.run(50_000)
    late = Server(net, 3, expect=3, election=election)
    net.run(4_000_000)
    for what in ("promote", "transfer", "leave"):
        server = 0 if what == "transfer" else late.id
        client.session.order(what, server, net.now, net.now + 2_500_000)
        net.run(3_000_000)
    if not late.engine.leaving.done:
        raise AssertionError("a server was not let go")


def captured_seal() -> Seal:
    """What opens the datagrams of `captured(True)`."""
    return Net(1, sealed=True).seal()


def work() -> list[Call[Any]]:
    """One of each command, some of which are refused."""
    receive = calls.receive({"apple": 7, "bolt": 3}, reference="PO-1", note="first", reason="new")
    return [
        calls.put_location("shelf"),
        calls.put_item("apple", name="Apple", attributes={"colour": "red", "n": 3, "x": None}),
        calls.put_item("bolt", unit="kg", scale=3, if_version=0),
        calls.put_item("Äpfel"),
        receive,
        calls.receive({"apple": 2}, idempotency_key="order-7"),
        calls.ship({"apple": 1}, occurred_at=datetime(2024, 1, 2, tzinfo=UTC)),
        calls.ship({"apple": 100_000}),
        calls.adjust("bolt", -1, reason="lost"),
        calls.set_on_hand("bolt", 5, force=True),
        calls.set_on_hand("bolt", 5, if_version=99),
        calls.transfer({"apple": 2}, source="main", destination="shelf"),
        calls.execute([calls.receive({"bolt": 4}), calls.ship({"bolt": 2})]),
        calls.delete_location("nowhere"),
        calls.delete_item("Äpfel"),
        *(calls.receive({"apple": 1}) for _ in range(20)),
    ]


def questions() -> list[Ask[Any]]:
    return [
        calls.level("apple"),
        calls.levels([("apple", "main"), ("bolt", "main")]),
        calls.get_item("apple"),
        calls.get_item("nothing"),
        calls.list_items(prefix="a"),
        calls.list_locations(),
        calls.list_levels(location="main", below=10),
        calls.available("apple"),
        calls.ledger(sku="apple", limit=3),
        calls.resolve("order-7"),
        calls.digest(),
    ]


def _sorted_out(datagrams: Iterable[bytes], seal: Seal) -> Corpus:
    corpus = Corpus()
    counts: dict[type, int] = {}
    streams: dict[tuple[int, int, int], StreamReader] = {}
    nexts: dict[tuple[int, int, int], int] = {}
    for data in datagrams:
        header = parse_header_untrusted(data)
        head, sealed = data[:HEADER_BYTES], data[HEADER_BYTES:]
        body = seal.open_untrusted(header.sender_boot, header.counter, head, sealed)
        found: list[bytes] = []
        for chunk in parse_chunks_untrusted(body):
            if isinstance(chunk, Unordered):
                found.append(chunk.body)
            elif isinstance(chunk, Data):
                key = (header.sender_boot, header.receiver_boot, chunk.epoch)
                if chunk.seq == nexts.get(key, 0):
                    nexts[key] = chunk.seq + 1
                    streams.setdefault(key, StreamReader(1 << 22)).feed(chunk.payload, found)
        rare = [message for message in found if _keep(corpus, message, counts)]
        if len(corpus.datagrams) < DATAGRAMS_MAX or rare:
            corpus.datagrams.append(data)
            corpus.bodies.append(body)
    return corpus


def _keep(corpus: Corpus, body: bytes, counts: dict[type, int]) -> bool:
    """Keep a message and what it carries, unless there are enough like it."""
    try:
        message = decode_untrusted(body)
    except BadDatagram as problem:  # our own server sent it
        raise AssertionError(f"a server sends {body.hex()}: {problem}") from problem
    counts[type(message)] = counts.get(type(message), 0) + 1
    if counts[type(message)] > PER_KIND_MAX:
        return False
    corpus.messages.append(body)
    match message:
        case messages.Request(command=command) if command:
            corpus.commands.append(command)
        case messages.Query(query=query):
            corpus.queries.append(query)
        case messages.Reply(result=result):
            corpus.outcomes.append(result)
        case messages.Answer(result=result):
            corpus.answers.append(result)
        case messages.ElectionMessage(body=own):
            corpus.elections.append(own)
        case messages.Append(entries=entries) | messages.PullReply(entries=entries):
            corpus.payloads.extend(entry.payload for entry in entries if entry.payload)
        case messages.MulticastBody(body=inner):
            _keep(corpus, inner, counts)
        case _:
            pass
    return True
