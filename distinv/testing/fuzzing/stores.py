"""Targets: bytes that reach the store. What one server cannot apply, no server can.

A command that raised while it is applied would stop every server, one after the other, and again
after each restart: it is in the log by then. Only what can be of a later release does so on
purpose, since others may carry it out; no leader of this release takes such a command.
"""

from __future__ import annotations

from random import Random

import msgspec

from distinv.entry import Ballot, EntryKind, decode_voters, make_entry
from distinv.errors import InvalidRequest
from distinv.inventory import queries
from distinv.inventory.commands import (
    decode_command_untrusted,
    decode_outcome,
    encode_command,
    is_of_later_release,
)
from distinv.inventory.machine import Applied, StateMachine
from distinv.testing.fuzzing.corpus import captured, work
from distinv.testing.fuzzing.decoders import voter_payloads
from distinv.testing.fuzzing.scene import EPOCH_US, tight
from distinv.testing.fuzzing.target import Decoding, Target
from distinv.wire.batch import (
    CloseSession,
    LogCommand,
    OpenCommand,
    SessionCommand,
    decode_batch,
    encode_batch,
)

FLUSH_EVERY = 500


class Store:
    """A store of its own, driven by log entries as a server drives it."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.limits = tight().limits
        self.machine = StateMachine(":memory:", self.limits)
        self._applied = 0
        self.session = self.apply_batch(encode_batch([OpenCommand(1, "fuzz")]))[0].session
        self._number = 0
        for call in work():
            self.command(call.encode())

    def apply_batch(self, payload: bytes) -> list[Applied]:
        machine, random = self.machine, self._random
        time_us = max(machine.time_us, EPOCH_US) + int(random.random() ** 8 * 10**11)
        entry = make_entry(machine.position, Ballot(1, 1), time_us, EntryKind.COMMANDS, payload)
        applied = machine.apply(entry)
        self._applied += 1
        if self._applied % FLUSH_EVERY == 0:
            machine.flush()
        return applied

    def command(self, data: bytes) -> None:
        """Apply a command as the next of a session."""
        applied = self._next(data)
        if applied.kind == "expired":  # nothing happened for a day
            self.session = self.apply_batch(encode_batch([OpenCommand(1, "fuzz")]))[0].session
            self._number = 0
            applied = self._next(data)
        if applied.kind != "expired":
            assert applied.kind == "result", applied
            decode_outcome(applied.result)

    def _next(self, data: bytes) -> Applied:
        self._number += 1
        command = SessionCommand(self.session, self._number, self._number - 5, data)
        return self.apply_batch(encode_batch([command]))[0]

    def problems(self) -> list[str]:
        return self.machine.problems()

    def sizes(self) -> dict[str, int]:
        return {"sessions": self.machine.session_count, "keys": self.machine._keys.count}

    def check(self) -> None:
        assert self.machine.session_count <= self.limits.sessions_max
        assert self.machine._keys.count <= self.limits.keys_max
        assert not self.problems(), self.problems()[0]
        self.machine.state_digest()
        self.machine.flush()


class _Commands(Decoding):
    """Commands: decoded, and applied whatever the decoder says, as the log would have it."""

    def __init__(self, seed: int) -> None:
        self.store = Store(seed)
        super().__init__(seed, captured(False).commands, self._apply, InvalidRequest)

    def _apply(self, data: bytes) -> None:
        if data and not is_of_later_release(data):
            self.store.command(data)
        command = decode_command_untrusted(data, self.store.limits)
        again = decode_command_untrusted(encode_command(command), self.store.limits)
        assert again == command

    def check(self) -> None:
        self.store.check()

    def sizes(self) -> dict[str, int]:
        return self.store.sizes()


class _Queries(Decoding):
    """Questions, put to a store that has something to say."""

    def __init__(self, seed: int) -> None:
        self.store = Store(seed)
        super().__init__(seed, captured(False).queries, self._ask, InvalidRequest)

    def _ask(self, data: bytes) -> None:
        answer = queries.decode_answer(self.store.machine.query(data))
        query = queries.decode_query_untrusted(data, self.store.limits)
        again = queries.decode_query_untrusted(queries.encode_query(query), self.store.limits)
        assert again == query
        assert answer.seq <= self.store.machine.seq

    def check(self) -> None:
        self.store.check()


class _Entries(Decoding):
    """Payloads of committed entries: what is no batch has no commands.

    One of a later release stops a server by design (`UpgradeNeeded`), and is not applied here.
    """

    def __init__(self, seed: int) -> None:
        self.store = Store(seed)
        examples = [*captured(False).payloads, *_batches(seed), *voter_payloads()]
        super().__init__(seed, examples, self._apply, ())

    def _apply(self, data: bytes) -> None:
        if not _is_batch_of_later_release(data):
            self.store.apply_batch(data)

    def check(self) -> None:
        self.store.check()

    def sizes(self) -> dict[str, int]:
        return self.store.sizes()


def _is_batch_of_later_release(data: bytes) -> bool:
    try:
        batch = decode_batch(data)
    except msgspec.ValidationError:
        return True
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    commands = [each.command for each in batch if isinstance(each, SessionCommand)]
    return any(command and is_of_later_release(command) for command in commands)


def _batches(seed: int) -> list[bytes]:
    random = Random(seed)
    commands: list[LogCommand] = [OpenCommand(nonce, f"client {nonce}") for nonce in range(4)]
    bodies = [b"", *captured(False).commands]
    for number in range(1, 12):
        session = random.choice((1 << 12, 2 << 12, 3 << 12))
        commands.append(SessionCommand(session, number, 1, random.choice(bodies)))
        commands.append(CloseSession(session))
    random.shuffle(commands)
    return [encode_batch(commands[at : at + 4]) for at in range(0, len(commands), 2)]


class _Voters(Decoding):
    """Payloads of voter entries."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, voter_payloads(), self._decode, (InvalidRequest,))

    def _decode(self, data: bytes) -> None:
        decode_voters(data)


TARGETS = (
    Target(
        "commands",
        "clients' commands, to the decoder and to the store",
        (
            "inventory.commands.decode_command_untrusted",
            "inventory.commands._decode_small_untrusted",
            "inventory.commands._decode_untrusted",
        ),
        _Commands,
        5_000,
        2_500,
        remembers=True,
    ),
    Target(
        "queries",
        "clients' questions, to the decoder and to the store",
        ("inventory.queries.decode_query_untrusted",),
        _Queries,
        10_000,
        10_000,
        remembers=True,
    ),
    Target(
        "entries",
        "batches of commands in committed log entries",
        (),
        _Entries,
        5_000,
        2_500,
        remembers=True,
    ),
)
