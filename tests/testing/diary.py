"""A small storage in one file, correct and slow, to be spoilt in the tests of the storage suite.

Each commit is a frame: the body's length, a checksum of that, a checksum of the body, the body. A
frame that ends early is a torn commit; one that is whole and does not match is damage.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from zlib import crc32

import msgspec

from distinv.entry import Entry, NodeId
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import Record, Recovered, StorageContext
from distinv.storage.memory import MemoryStorage

HEAD = Struct(">III")

_decoder = msgspec.msgpack.Decoder(list[Record])


def frame(body: bytes) -> bytes:
    length = len(body).to_bytes(4, "big")
    return HEAD.pack(len(body), crc32(length), crc32(body)) + body


class Diary:
    """Implements `distinv.storage.api.Storage`; what was committed is also in memory."""

    def __init__(self, context: StorageContext) -> None:
        self.directory = context.data_dir
        self.descriptor = -1
        self.kept = MemoryStorage()
        self.kept.recover()
        self.refusal = "it was not recovered yet"

    @property
    def path(self) -> Path:
        return self.directory / "diary"

    def recover(self) -> Recovered:
        if self.descriptor >= 0:
            raise StorageError("a diary is recovered once")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.lock()
        end = self.replay(self.path.read_bytes())
        torn = end < os.fstat(self.descriptor).st_size
        os.ftruncate(self.descriptor, end)
        os.lseek(self.descriptor, end, os.SEEK_SET)
        self.refusal = ""
        return self.recovered(torn)

    def lock(self) -> None:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(f"{self.path} is in use") from None

    def replay(self, data: bytes) -> int:
        """Apply the whole frames. Where they end."""
        at = 0
        while at + HEAD.size <= len(data):
            length, length_sum, body_sum = HEAD.unpack_from(data, at)
            if crc32(length.to_bytes(4, "big")) != length_sum:
                raise CorruptLog(f"{self.path}, byte {at}")
            body = data[at + HEAD.size : at + HEAD.size + length]
            if len(body) < length:
                break
            if crc32(body) != body_sum:
                raise CorruptLog(f"{self.path}, byte {at}")
            self.kept.commit(_decoder.decode(body))
            at += HEAD.size + length
        return at

    def recovered(self, torn: bool) -> Recovered:
        image = self.kept._durable
        identity = image.identity
        return Recovered(
            node=None if identity is None else NodeId(identity.node),
            cluster_name=None if identity is None else identity.cluster_name,
            promised=image.promised,
            entries=tuple(image.entries),
            birth=image.birth,
            torn=torn,
            base=image.base,
        )

    def commit(self, records: Sequence[Record]) -> None:
        self.check()
        try:
            self.kept.commit(records)
        except StorageError as error:
            self.refusal = str(error)
            raise
        self.write(frame(msgspec.msgpack.encode(list(records))))

    def write(self, data: bytes) -> None:
        os.write(self.descriptor, data)  # a real one syncs here; these tests kill processes only

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        self.check()
        return self.kept.read(first, last, max_bytes)

    def close(self) -> None:
        self.refusal = self.refusal or "it is closed"
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def check(self) -> None:
        if self.refusal:
            raise StorageError(self.refusal)
