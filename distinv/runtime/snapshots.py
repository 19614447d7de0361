"""A server's snapshots on disk: those it makes for others, and the one that it receives.

`snapshot-<n>.sqlite3` is a copy for others, removed when it is closed or at the next start.
`incoming.sqlite3` is what another server's copy has come to so far, and `incoming.head` tells which
one it is: a restart goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from distinv.config import Limits
from distinv.entry import SnapshotHead
from distinv.errors import StorageError
from distinv.inventory.file import begin_to_write, sync_directory, sync_file
from distinv.inventory.machine import StateMachine
from distinv.inventory.snapshot import (
    Snapshot,
    SnapshotFile,
    install_snapshot,
    look_at_snapshot,
)
from distinv.storage.failures import disk_failure

STORE_FILE = "store.sqlite3"
HEAD_FILE = "incoming.head"
_INCOMING = "incoming.sqlite3"
_MADE = re.compile(r"snapshot-\d+\.sqlite3(\.part)?(-\w+)?")
"""Its own names and no others: whoever keeps a copy here calls it something else."""

_head_decoder = msgspec.msgpack.Decoder(SnapshotHead)


class Depot(Protocol):
    """Where a server keeps the pieces that it receives, and makes a store of them."""

    def maker(self, machine: StateMachine) -> Callable[[], Snapshot]: ...

    def resume(self) -> tuple[SnapshotHead, int] | None: ...

    def begin(self, head: SnapshotHead) -> None: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def look(self, head: SnapshotHead) -> None:
        """Read all of it, and make it durable. For a thread. Raises StorageError when it is not
        what it should be."""
        ...

    def install(self, head: SnapshotHead) -> StateMachine:
        """What was looked at is the store from now on; the old one is closed. Milliseconds."""
        ...

    def installed(self) -> SnapshotHead | None:
        """What was installed last, or was about to be; forgotten when another one begins."""
        ...

    def discard(self) -> None:
        """It is of no use: the next one begins anew."""
        ...


class FileDepot:
    """In the data directory."""

    def __init__(self, data_dir: Path, limits: Limits) -> None:
        self._data_dir = data_dir
        self._limits = limits
        self._incoming = data_dir / _INCOMING
        self._head = data_dir / HEAD_FILE
        self._made = 0
        try:
            for left in data_dir.iterdir() if data_dir.exists() else ():
                if _MADE.fullmatch(left.name):
                    left.unlink()  # of a run before this one: nobody reads them any more
        except OSError as error:
            raise disk_failure(data_dir, error) from error

    # --- for others ---------------------------------------------------------------------------

    def maker(self, machine: StateMachine) -> Callable[[], Snapshot]:
        """Called on the loop: what makes a snapshot of `machine` in a thread."""
        self._made += 1
        write = machine.snapshot_writer(self._data_dir / f"snapshot-{self._made}.sqlite3")
        return lambda: _nameless(write())

    # --- from another server ------------------------------------------------------------------

    def resume(self) -> tuple[SnapshotHead, int] | None:
        try:
            head = _head_decoder.decode(self._head.read_bytes())
            return head, min(self._incoming.stat().st_size, head.size_bytes)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None  # nothing was begun, or nothing that can be gone on with

    def begin(self, head: SnapshotHead) -> None:
        try:
            self.discard()
            self._incoming.touch()
            self._head.write_bytes(msgspec.msgpack.encode(head))
        except OSError as error:
            raise disk_failure(self._data_dir, error) from error

    def write(self, offset: int, data: bytes) -> None:
        try:
            with self._incoming.open("r+b") as file:
                file.seek(offset)
                file.write(data)
                file.flush()
                begin_to_write(file.fileno(), offset, len(data))
        except OSError as error:
            raise disk_failure(self._data_dir, error) from error

    def look(self, head: SnapshotHead) -> None:
        look_at_snapshot(self._incoming, head)
        try:  # here, in a thread, rather than where the loop waits
            sync_file(self._head)
            sync_directory(self._data_dir)
        except OSError as error:
            raise disk_failure(self._data_dir, error) from error

    def install(self, head: SnapshotHead) -> StateMachine:
        store = self._data_dir / STORE_FILE
        install_snapshot(self._incoming, store)  # and the head stays: see `reconcile`
        return StateMachine(str(store), self._limits)

    def installed(self) -> SnapshotHead | None:
        try:
            return _head_decoder.decode(self._head.read_bytes())
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def discard(self) -> None:
        try:
            self._head.unlink(missing_ok=True)
            self._incoming.unlink(missing_ok=True)
        except OSError as error:
            raise disk_failure(self._data_dir, error) from error


def _nameless(snapshot: Snapshot) -> Snapshot:
    """Its file goes when it is closed, whatever happens to this process."""
    if isinstance(snapshot, SnapshotFile):
        snapshot.path.unlink(missing_ok=True)
    return snapshot


class MemoryDepot:
    """For a server that keeps nothing on disk."""

    def __init__(
        self,
        limits: Limits,
        open_copy: Callable[[bytes, SnapshotHead], StateMachine] | None = None,
    ) -> None:
        """`open_copy` makes the store of a snapshot that is whole."""
        self._open_copy = open_copy or partial(StateMachine.from_snapshot, limits=limits)
        self._head: SnapshotHead | None = None
        self._data = bytearray()
        self._found: StateMachine | None = None
        self._installed: SnapshotHead | None = None

    def maker(self, machine: StateMachine) -> Callable[[], Snapshot]:
        return machine.snapshot_writer(Path())

    def resume(self) -> tuple[SnapshotHead, int] | None:
        return None if self._head is None else (self._head, len(self._data))

    def begin(self, head: SnapshotHead) -> None:
        self._head, self._data = head, bytearray()
        self._installed = None

    def write(self, offset: int, data: bytes) -> None:
        self._data[offset : offset + len(data)] = data

    def look(self, head: SnapshotHead) -> None:
        self._found = self._open_copy(bytes(self._data), head)

    def install(self, head: SnapshotHead) -> StateMachine:
        found = self._found
        if found is None:
            raise StorageError("The snapshot was not looked at.")
        self.discard()
        self._installed = head
        return found

    def installed(self) -> SnapshotHead | None:
        return self._installed

    def discard(self) -> None:
        self._head, self._data, self._found = None, bytearray(), None
