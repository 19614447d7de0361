"""The replicated state machine: committed log entries in, the state of the inventory out.

A deterministic function of the log: the same entries give the same results, byte for byte, and
the same state digest on every server. It never reads a clock, random numbers or a plugin.

What is applied stands in memory and in one open SQLite transaction until `flush`; the place in
the log is written in the same transaction as the effects, so whatever a crash loses is applied
again from the journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from distinv.config import Limits
from distinv.core.sessions import Admission, SessionTable
from distinv.entry import (
    Ballot,
    Entry,
    EntryKind,
    Position,
    SnapshotHead,
    VoterSet,
    decode_voters,
)
from distinv.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    StorageError,
    TooManyKeys,
    TooManyLines,
    UpgradeNeeded,
)
from distinv.inventory.cells import DIGEST_MODULUS
from distinv.inventory.check import problems
from distinv.inventory.commands import (
    Accepted,
    Command,
    Detail,
    OriginalSeq,
    Outcome,
    Refused,
    Trimmed,
    Voided,
    decode_command_untrusted,
    decode_outcome,
    encode_outcome,
    is_of_later_release,
)
from distinv.inventory.digest import digest_of, stock_by_sku
from distinv.inventory.file import StoreFile
from distinv.inventory.history import accepted_again, read_record
from distinv.inventory.keys import KeyRow, KeyTable, payload_hash
from distinv.inventory.operations import Refusal, Work
from distinv.inventory.queries import (
    AskDigest,
    DigestValue,
    Failure,
    decode_query_untrusted,
    encode_answer,
    encode_query,
)
from distinv.inventory.reading import Reader
from distinv.inventory.rules import LIMITS
from distinv.inventory.schema import MEMORY, StoreState, open_database, open_reader, read_state
from distinv.inventory.session_rows import SessionRows
from distinv.inventory.snapshot import (
    Snapshot,
    load_snapshot,
    snapshot_of,
    write_snapshot,
)
from distinv.inventory.tables import Tables
from distinv.model import Digest
from distinv.wire.batch import LogCommand, OpenCommand, SessionCommand, decode_batch, session_id


class Applied(NamedTuple):
    """What became of one log command."""

    session: int
    number: int
    """0 for an opened or closed session."""
    nonce: int
    """Of an opened session, else 0."""
    result: bytes
    """The encoded outcome; empty when there is none, or it is no longer kept."""
    kind: str
    """opened, result, expired, gap, closed, or dropped: a duplicate without its result."""


_encode = msgspec.msgpack.Encoder().encode
_DIGEST_QUESTION = encode_query(AskDigest())


class StateMachine:
    """One server's inventory, in a file or in memory (`":memory:"`).

    The limits belong to the log: all servers of a cluster must use the same. After any
    StorageError the machine refuses every further call; open the file again.
    """

    def __init__(
        self, path: str = MEMORY, limits: Limits | None = None, *, durable: bool = False
    ) -> None:
        """`durable`: see `schema.open_database`. Raises StorageError."""
        self.path = path
        self.limits = limits or LIMITS
        self._command_limits = LIMITS if self.limits == LIMITS else self.limits
        """The very object by which commands are checked as they come: what was read then is found
        again without comparing sixty numbers."""
        self._failed = False
        self._changed = False
        """Something was applied since the last flush. The transaction begins only when it is
        written: while none is open SQLite can begin its write-ahead log anew."""
        self._changes_checkpointed = 0
        self._digest: Digest | None = None
        """The last that was computed: while nothing changes, it holds."""
        self._file = None if path == MEMORY else StoreFile(path)
        try:
            self._database = open_database(path, durable=durable)
            if self._file is not None:
                self._file.watch()
            with self._guard():
                self._load()
        except BaseException:
            self._release()
            raise

    def _load(self) -> None:
        database, limits = self._database, self.limits
        state = read_state(database)
        self.position = state.position
        self._voters = (state.voters_index, state.voters_ballot, state.voters)
        self.time_us = state.time_us
        self.seq = state.seq
        self._tables = Tables(database, limits, int.from_bytes(state.digest_sum, "big"))
        self._keys = KeyTable(database, limits, state.keys)
        self._session_rows = SessionRows(database)
        self._sessions = SessionTable(limits, self._session_rows.read())
        self._reader = Reader(self._tables, self._keys, self._sessions, limits)

    @classmethod
    def from_snapshot(cls, data: bytes, head: SnapshotHead, limits: Limits | None = None) -> Self:
        """A machine in memory that goes on where a snapshot ends.

        Raises StorageError when the bytes are not what `head` says, or not sound.
        """
        with closing(load_snapshot(data, head)) as snapshot:
            machine = cls(MEMORY, limits)
            with machine._guard():
                snapshot.backup(machine._database)  # a database that was deserialized stays small
                machine._load()
        return machine

    # --- the log ------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> list[Applied]:
        """Apply the next entry of the log.

        Raises StorageError when it is not the next, UpgradeNeeded when it holds a command of a
        later release.
        """
        if entry.index != self.position.index + 1:
            raise StorageError(f"Entry {entry.index} does not follow {self.position.index}.")
        with self._guard():
            self._changed = True
            if entry.time_us and not self.time_us:
                self._sessions.start_clock(entry.time_us)
                self._keys.start_clock(entry.time_us)
            self.time_us = entry.time_us
            self._sessions.expire(entry.time_us)
            self._keys.expire(entry.time_us)
            applied = []
            if entry.kind == EntryKind.COMMANDS:
                for offset, command in enumerate(_commands_of(entry)):
                    stamp = session_id(entry.index, offset)
                    applied.append(self._apply_log_command(command, stamp))
            elif entry.kind == EntryKind.VOTERS:
                self._apply_voters(entry)
            self.position = entry.position
            return applied

    def _apply_voters(self, entry: Entry) -> None:
        """A payload that cannot be read changes nothing, on every server alike."""
        try:
            self._voters = entry.index, entry.ballot, decode_voters(entry.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass

    @property
    def voters(self) -> tuple[int, Ballot, VoterSet] | None:
        """The voter set in force at `position`: index and ballot of its entry, and the set.

        None: none was set, or the file was written before voters were kept (`learn_voters`).
        """
        index, ballot, voters = self._voters
        return None if voters is None else (index, ballot, voters)

    def learn_voters(self, index: int, ballot: Ballot, voters: VoterSet) -> None:
        """Tell a store from before voters were kept which set is in force at `position`.

        Whoever opens it finds the set in the log. `index` is at or below the position.
        """
        assert self.voters is None, "the voters are known"
        assert index <= self.position.index, "not in force yet"
        with self._guard():
            self._changed = True
            self._voters = index, ballot, voters

    def begin_cluster(self, voters: VoterSet) -> None:
        """From here on this state belongs to another cluster, which begins with it."""
        with self._guard():
            self._changed = True
            self._voters = self.position.index, self.position.ballot, voters

    def _apply_log_command(self, command: LogCommand, stamp: int) -> Applied:
        if isinstance(command, SessionCommand):
            return self._apply_session_command(command, stamp)
        if isinstance(command, OpenCommand):
            name = command.name[: self.limits.name_chars].replace("\0", "")
            session = self._sessions.open(command.nonce, name, stamp, self.time_us)
            return Applied(session, 0, command.nonce, b"", "opened")
        self._sessions.close(command.session)
        return Applied(command.session, 0, 0, b"", "closed")

    def _apply_session_command(self, command: SessionCommand, stamp: int) -> Applied:
        session, number = command.session, command.number
        admission = self._sessions.admit(session, number, command.lowest, stamp, self.time_us)
        if admission is Admission.TAKE:
            state = self._sessions.get(session)
            assert state is not None
            outcome: Outcome = (
                self._apply_command(command.command, state.name)
                if command.command
                else Voided(self.time_us)
            )
            result = encode_outcome(outcome)
            if len(result) > self.limits.session_results_bytes:
                result = _short(outcome)  # a list of levels may outgrow any message
            fits = self._sessions.has_room(session, len(result))
            self._sessions.record(session, result if fits else _short(outcome))
            return Applied(session, number, 0, result, "result")
        if admission is Admission.DUPLICATE:
            result = self.result(session, number) or b""
            return Applied(session, number, 0, result, "result" if result else "dropped")
        return Applied(session, number, 0, b"", admission.value)

    def _apply_command(self, data: bytes, actor: str) -> Accepted | Refused:
        try:
            command = decode_command_untrusted(data, self._command_limits)
        except InvalidRequest as error:
            if not isinstance(error, TooManyLines) and is_of_later_release(data):
                raise _upgrade_needed(self.position.index + 1) from None
            return self._refused(error.code, str(error))
        return self._execute(command, actor)

    def _execute(self, command: Command, actor: str) -> Accepted | Refused:
        digest = b""
        if command.key:
            digest = payload_hash(command)
            known = self._keys.get(command.key, self.time_us)
            if known is not None:
                return self._use_again(command.key, known, digest)
            if self._keys.full:
                return self._refused(
                    TooManyKeys.code, f"{self.limits.keys_max} keys are remembered already."
                )
        outcome = self._apply_operations(command, actor)
        if command.key and isinstance(outcome, Accepted):
            self._keys.put(KeyRow(command.key, outcome.seq, self.time_us, digest))
        return outcome

    def _use_again(self, key: str, known: KeyRow, digest: bytes) -> Accepted | Refused:
        if known.hash != digest:
            return self._refused(
                IdempotencyKeyReused.code,
                f"The key {key!r} was used for something else at seq {known.seq}.",
                OriginalSeq(known.seq),
            )
        self._tables.write()
        record = read_record(self._database, known.seq)
        if record is None:
            raise StorageError(f"The store is damaged: the key {key!r} leads to no ledger row.")
        return accepted_again(record)

    def _apply_operations(self, command: Command, actor: str) -> Accepted | Refused:
        seq, operations, tables = self.seq + 1, command.operations, self._tables
        work = Work(tables, self.limits, seq, undoable=len(operations) > 1)
        try:
            for operation in operations:
                work.apply(operation)
        except Refusal as refusal:
            work.undo()
            return self._refused(refusal.code, refusal.message, refusal.detail)
        self.seq = seq
        tables.add_ledger(seq, self.time_us, actor, _encode(work.effects))
        for operation in operations:
            if operation.about.reference:
                tables.add_reference(operation.about.reference, seq)
        return Accepted(
            seq,
            self.time_us,
            tuple([cell.row() for cell in work.levels.values()]),
            tuple([cell.row() for cell in work.items]),
            tuple([cell.row() for cell in work.locations]),
        )

    def _refused(self, code: str, message: str, detail: Detail | None = None) -> Refused:
        self.seq += 1
        return Refused(self.seq, self.time_us, code, message, detail)

    # --- sessions -----------------------------------------------------------------------------

    def last_number(self, session: int) -> int | None:
        """The last number decided in a session, open or closed; None: no such session."""
        state = self._sessions.get(session)
        return None if state is None else state.last

    def result(self, session: int, number: int) -> bytes | None:
        """The recorded outcome, encoded; None when there is none, or not any more.

        An accepted command whose outcome was cut short is told whole again from the ledger.
        """
        result = self._sessions.result(session, number)
        if result is None:
            return None
        outcome = decode_outcome(result)
        return self._whole(outcome) or result if isinstance(outcome, Trimmed) else result

    def _whole(self, outcome: Trimmed) -> bytes | None:
        if outcome.code:
            return None
        with self._guard():
            self._tables.write()
            record = read_record(self._database, outcome.seq)
        if record is None:
            return None
        again = msgspec.structs.replace(accepted_again(record), replayed=outcome.replayed)
        whole = encode_outcome(again)
        return whole if len(whole) <= self.limits.session_results_bytes else None

    def session_of_nonce(self, nonce: int) -> int | None:
        """The open session that was opened with this nonce."""
        return self._sessions.of_nonce(nonce)

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    @property
    def touched(self) -> bool:
        """Clients have left something in it: a command, or a session."""
        return self.seq > 0 or len(self._sessions) > 0

    # --- reading ------------------------------------------------------------------------------

    def query(self, data: bytes) -> bytes:
        """An encoded question in, its encoded answer out, at everything applied so far."""
        try:
            query = decode_query_untrusted(data, self.limits)
        except InvalidRequest as error:
            return encode_answer(Failure(self.seq, error.code, str(error)))
        with self._guard():
            answer = self._at_now().answer(query)
            self._tables.trim()
        return encode_answer(answer)

    def _at_now(self) -> Reader:
        self._reader.seq = self.seq
        self._reader.time_us = self.time_us
        return self._reader

    def digest(self) -> Digest:
        """The inventory digest. Reads all levels: see `digest_reader` for a large store."""
        with self._guard():
            if self._digest is None or self._digest.seq != self.seq:
                self._tables.write()
                self._digest = Digest(self.seq, digest_of(stock_by_sku(self._database)))
        return self._digest

    def digest_reader(self) -> Callable[[], Digest]:
        """Flush, and return what computes the inventory digest in a thread of its own.

        It reads on a second connection, at the state it finds, which is this one or a later
        one. For a store in memory it is computed here and now.
        """
        file, known = self._file, self._digest
        if file is None or (known is not None and known.seq == self.seq):
            digest = self.digest()
            return lambda: digest
        self.flush()

        def read() -> Digest:
            self._digest = digest = _read_digest(file)
            return digest

        return read

    def takes_long(self, data: bytes) -> bool:
        """Whether an encoded question reads the whole store: then ask `long_reader`."""
        return data == _DIGEST_QUESTION

    def long_reader(self, data: bytes) -> Callable[[], bytes]:
        """What `query` would answer to a question that takes long: see `digest_reader`."""
        reader = self.digest_reader()

        def answer() -> bytes:
            digest = reader()
            return encode_answer(DigestValue(digest.seq, digest.value))

        return answer

    def state_digest(self) -> str:
        """What servers compare at equal positions: 32 hex digits.

        Covers catalogue, levels, sessions and keys, and the place in the order. Not the voters:
        nothing is computed from them, the hash of the position already proves them, and a file
        from before they were kept (or a server that does not keep them yet) holds the same stock.
        """
        with self._guard():
            if self._changed or not self.position.index:
                self._write()  # what is written still counts when nothing was applied since
        place = _encode((self.position.index, self.time_us, self.seq, self._keys.count))
        total = self._tables.digest_sum.to_bytes(16, "big")
        return blake2b(total + place, digest_size=16).hexdigest()

    def problems(self) -> list[str]:
        """Broken invariants in plain words: none. Reads the whole store, for tests and checks."""
        self._sessions.check()
        with self._guard():
            self._write()
            return problems(self._database, self.seq, self._tables.digest_sum, self.limits)

    # --- the file -----------------------------------------------------------------------------

    def flush(self) -> None:
        """End the transaction: everything applied so far, and its place in the log, together."""
        with self._guard():
            if self._changed or self._database.in_transaction:
                self._write()
                self._tables.trim()
                self._database.execute("COMMIT")
                self._changed = False

    @property
    def checkpoint_due(self) -> bool:
        """So much was written since the last `checkpointer` that it is time for the next."""
        written = self._database.total_changes - self._changes_checkpointed
        return self._file is not None and written >= self.limits.store_checkpoint_rows

    def checkpointer(self) -> Callable[[], Position]:
        """Flush, and return what makes it durable in the database file itself, in a thread.

        It answers the position that the file holds durably without its write-ahead log: this
        one, or an older one (at first `ORIGIN`) while others read an older state. The log behind
        that position is not needed any more. After a StorageError the machine refuses every
        further call. In memory everything applied counts.
        """
        self.flush()
        self._changes_checkpointed = self._database.total_changes
        file, position = self._file, self.position
        if file is None:
            return lambda: position

        def checkpoint() -> Position:
            try:
                return file.checkpoint(position)
            except StorageError:
                self._failed = True
                raise

        return checkpoint

    def snapshot_writer(self, path: Path) -> Callable[[], Snapshot]:
        """Flush, and return what makes a snapshot in a thread, of this state or a later one.

        It is written to `path`, which appears when it is whole (meanwhile `<path>.part`), and is
        there to be given away: nothing is synced. In
        memory nothing is written, and the state is this one. Calling it raises StorageError when
        it cannot be written, or no voters are known; the machine goes on all the same.
        """
        self.flush()
        file = self._file
        if file is None:
            with self._guard():
                data, state = self._database.serialize(), read_state(self._database)
            return lambda: snapshot_of(data, state)

        def write() -> Snapshot:
            with file.in_use():
                return write_snapshot(file.path, path, durable=False)

        return write

    def close(self) -> None:
        """Flush and close. Closing twice is allowed."""
        if self._failed:
            self._release()
            return
        try:
            self.flush()
        finally:
            self._release()

    def abandon(self) -> None:
        """Close without flushing: as a crash does."""
        self._release()

    def _write(self) -> None:
        tables, keys = self._tables, self._keys
        tables.begin()
        tables.write()
        keys.write()
        change = keys.digest_change + self._session_rows.write(self._sessions.take_changed())
        tables.digest_sum = (tables.digest_sum + change) % DIGEST_MODULUS
        keys.digest_change = 0
        state = StoreState(
            *self.position,
            self.time_us,
            self.seq,
            keys.count,
            tables.digest_sum.to_bytes(16, "big"),
            *self._voters,
        )
        self._database.execute("REPLACE INTO state VALUES (1, ?)", (_encode(state),))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """After a failure memory and file may differ: nothing goes on as if it had worked."""
        if self._failed:
            raise StorageError(f"The store {self.path} is closed, or failed before.")
        try:
            yield
        except sqlite3.Error as error:
            self._failed = True
            raise StorageError(f"The store {self.path} failed: {error}.") from error
        except BaseException:
            self._failed = True
            raise

    def _release(self) -> None:
        self._failed = True
        database = getattr(self, "_database", None)
        if database is not None:
            database.close()
        if self._file is not None:
            self._file.close()


def _short(outcome: Outcome) -> bytes:
    """What is kept of an outcome that does not fit: its seq and code."""
    match outcome:
        case Accepted(seq=seq, time_us=time_us, replayed=replayed):
            return encode_outcome(Trimmed(seq, time_us, "", replayed))
        case Refused(seq=seq, time_us=time_us, code=code):
            return encode_outcome(Trimmed(seq, time_us, code))
    return encode_outcome(outcome)


def _commands_of(entry: Entry) -> tuple[LogCommand, ...]:
    """The commands of an entry; one that is no batch has none, on every server alike.

    Raises UpgradeNeeded for well-formed ones of a kind that is not known here: others carry them
    out, so they must not be passed over.
    """
    try:
        return decode_batch(entry.payload)
    except msgspec.ValidationError:
        raise _upgrade_needed(entry.index) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ()


def _upgrade_needed(index: int) -> UpgradeNeeded:
    return UpgradeNeeded(
        f"entry {index} holds a command that this release does not know: the cluster runs a later "
        "one; upgrade this server"
    )


def _read_digest(file: StoreFile) -> Digest:
    with file.in_use(), closing(open_reader(file.path)) as database:
        try:
            database.execute("BEGIN")
            return Digest(read_state(database).seq, digest_of(stock_by_sku(database)))
        except sqlite3.Error as error:
            raise StorageError(f"The store {file.path} cannot be read: {error}.") from error
