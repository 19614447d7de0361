"""Short forms that people read: a server is a letter, a ballot 3.a, an entry 5@3.a."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distinv.election import bully, ring
from distinv.entry import (
    NO_BALLOT,
    Ballot,
    Entry,
    EntryKind,
    NodeId,
    Position,
    decode_voters,
)
from distinv.errors import BadDatagram
from distinv.wire import messages as m
from distinv.wire.batch import CloseSession, OpenCommand, decode_batch
from distinv.wire.codec import decode_untrusted

TILL = NodeId(900)
"""The client of a scene that has one."""

_ENTRIES_MAX = 3


def letter(node: int) -> str:
    """1 is a, 2 is b; the client is the till."""
    return "till" if node == TILL else chr(ord("a") + node - 1) if node else "nobody"


def node_of(name: str) -> NodeId:
    """The other way round. Raises ValueError."""
    if name == "till":
        return TILL
    if len(name) != 1 or not "a" <= name <= "z":
        raise ValueError(f"{name!r} is no server: they are a, b, c, …")
    return NodeId(ord(name) - ord("a") + 1)


def ballot(value: Ballot) -> str:
    return "0" if value == NO_BALLOT else f"{value.term}.{letter(value.node)}"


def position(value: Position) -> str:
    return f"{value.index}@{ballot(value.ballot)}"


def entry(value: Entry, describe: Callable[[bytes], str]) -> str:
    """`describe` says what an inventory command is."""
    place = position(value.position)
    if value.kind == EntryKind.COMMANDS:
        batch = decode_batch(value.payload)
        return f"{place} " + ", ".join(command(each, describe) for each in batch)
    if value.kind == EntryKind.VOTERS:
        return f"{place} voters " + " ".join(map(letter, decode_voters(value.payload).ids))
    return f"{place} no-op"


def command(value: m.LogCommand, describe: Callable[[bytes], str]) -> str:
    if isinstance(value, OpenCommand):
        return f"open session of {value.name}"
    if isinstance(value, CloseSession):
        return "close session"
    return describe(value.command) if value.command else f"void {value.number}"


def entries(values: Iterable[Entry], describe: Callable[[bytes], str]) -> str:
    texts = [entry(value, describe) for value in values]
    if len(texts) > _ENTRIES_MAX:
        texts[1:-1] = ["…"]
    return ", ".join(texts)


def plain(body: bytes) -> str:
    """A command that is only a text."""
    return f'"{body.decode()}"'


def message(value: Any, describe: Callable[[bytes], str] = plain) -> str:
    """One message: its name, whose ballot, and what matters."""
    if isinstance(value, m.MulticastBody):
        return message(decode_untrusted(value.body), describe)
    if isinstance(value, m.Append):
        return f"Append {ballot(value.ballot)} {_append(value, describe)}"
    if isinstance(value, m.PullReply):
        return f"PullReply {ballot(value.ballot)} {_pull_reply(value, describe)}"
    if isinstance(value, m.Request):
        what = describe(value.command) if value.command else "void"
        return f"Request {value.number} (copy {value.copy}) {what}"
    if isinstance(value, m.ElectionMessage):
        return _election(value.body)
    details = _DETAILS.get(type(value))
    return f"{type(value).__name__} {details(value)}".rstrip() if details else type(value).__name__


def _append(value: m.Append, describe: Callable[[bytes], str]) -> str:
    what = entries(value.entries, describe) if value.entries else "nothing: where do you stand?"
    return f"after {position(value.previous)}: {what}; commit {value.commit}"


def _pull_reply(value: m.PullReply, describe: Callable[[bytes], str]) -> str:
    if not value.held:
        return "I do not hold that log"
    if not value.entries:
        return f"{position(value.after)} is not in my log, try {value.matches}"
    return f"after {position(value.after)}: {entries(value.entries, describe)}"


def _election(body: bytes) -> str:
    """A plugin's message; which plugin's, the form tells: the ring's have more fields."""
    for decode, texts in ((ring.decode_untrusted, _RING), (bully.decode_untrusted, _BULLY)):
        try:
            value: Any = decode(body)
        except BadDatagram:
            continue  # the other one's
        return texts[type(value)](value)
    return "election noise"


_BULLY: dict[type, Callable[[Any], str]] = {
    bully.ElectionCall: lambda value: "bully: ELECTION, do you live?",
    bully.Answer: lambda value: "bully: ANSWER, leave it to me",
    bully.Coordinator: lambda value: "bully: COORDINATOR, nobody higher answers",
}

_RING: dict[type, Callable[[Any], str]] = {
    ring.Token: lambda value: f"ring: ELECTION {value.number}, best is {letter(value.candidate)}",
    ring.Elected: lambda value: f"ring: ELECTED {value.number}, {letter(value.candidate)}",
    ring.Ack: lambda value: f"ring: got it (election {value.number})",
}


def _pre_vote_reply(value: m.PreVoteReply) -> str:
    if value.granted:
        return f"yes (promised {ballot(value.promised)})"
    return f"no, I hear {letter(value.leader)}"


def _refusal(value: m.PrepareRefused | m.BallotRefused) -> str:
    text = f"{ballot(value.ballot)}: I promised {ballot(value.promised)}"
    return text + (f" and hear {letter(value.leader)}" if value.leader else "")


def _prepare(value: m.Prepare) -> str:
    ordered = value.ordered_by != NO_BALLOT
    return ballot(value.ballot) + (f" ordered by {ballot(value.ordered_by)}" if ordered else "")


def _acknowledged(value: m.AppendAck | m.HeartbeatAck) -> str:
    what = f"verified to {value.verified}" if value.verified else "verified nothing yet"
    return f"{ballot(value.ballot)} {what}{_round(value.round)}"


def _round(number: int) -> str:
    return f", round {number}" if number else ""


def _read_index_reply(value: m.ReadIndexReply) -> str:
    if value.index < 0:
        return f"{value.number}: I do not lead, or not yet"
    return f"{value.number}: from {value.index} on"


_DETAILS: dict[type, Callable[[Any], str]] = {
    m.Join: lambda value: "send me the log",
    m.Dismissed: lambda value: "stop" if value.stop else "go on without a vote",
    m.NominateHint: lambda value: "you should lead",
    m.PreVote: lambda value: f"would you hear me in {ballot(value.ballot)}?",
    m.PreVoteReply: _pre_vote_reply,
    m.Prepare: _prepare,
    m.Promise: lambda value: (
        f"{ballot(value.ballot)}, last {position(value.last)}, commit {value.commit}"
    ),
    m.PrepareRefused: _refusal,
    m.BallotRefused: _refusal,
    m.TransferOrder: lambda value: f"{ballot(value.ballot)}: take over",
    m.Pull: lambda value: (
        f"{ballot(value.ballot)} after {position(value.after)}"
        f" up to {value.until_index}@{ballot(value.until_ballot)}"
    ),
    m.Heartbeat: lambda value: f"{ballot(value.ballot)} commit {value.commit}{_round(value.round)}",
    m.HeartbeatAck: _acknowledged,
    m.AppendAck: _acknowledged,
    m.AppendMismatch: lambda value: (
        f"{ballot(value.ballot)} I do not hold that {value.previous_index}, try {value.matches}"
    ),
    m.ReadIndex: lambda value: f"question {value.number}",
    m.ReadIndexReply: _read_index_reply,
    m.OpenSession: lambda value: f"of {value.name} (copy {value.copy})",
    m.Reply: lambda value: f"{value.number}",
    m.NotTaken: lambda value: (
        f"{value.number if value.session else 'open'} (copy {value.copy}): {value.reason}"
    ),
}
