"""The journal's format on disk: pure functions between records and bytes.

Glossary, from the outside in:

segment   A file `journal/<number>.segment`: the *file head* in its first sector, then writes, then
          zeros. It has its full size, in real zeros, before its first use, so that a commit
          changes no metadata. Segments are numbered without gaps.
sector    512 bytes: what a disk writes whole or not at all. Every sector carries a checksum, its
          place in its write (`part`), the number of its write and the number of the complete
          write before it (`previous`). Zeros mean: never written. **No sector is ever written
          twice.**
write     What one commit wrote: consecutive sectors of one segment. Its number is never reused.
          A *write head* (length, hash) precedes its records; the hash covers the hash of the
          write before, so that the writes form a chain. A write never spans segments: one that
          does not fit begins the next, and one larger than a segment gets a segment to measure.
record    A *record head* (checksum, length, the promise in force) and a message-pack body: one of
          the records of `distinv.storage.api`, or an opening.
opening   The first record of the first write of every segment: all that is not in the log, the
          base among it. So the segments before it can be dropped whole, once the base is at or
          above `before`, the end of the log when the segment began.

Version 2 brought the base. Segments of version 1 are read, and never written to again: what they
would be told next, a base perhaps, begins a segment of version 2. A program that reads version 1
only refuses that one by its number.

How an end is told from damage (the rule of `distinv.storage.scan`). Let L be the last complete
write. A sector behind it that names L as the write before belongs to a write that was never
acknowledged, for nothing was ever built on it: a *torn* write, which is dropped; its sectors stay,
and the next write, with a new number, goes behind them and names L as well. A sector that names
another write before it proves that a complete write has lost sectors: *corruption*. So is every
sector that is neither zero nor true to its checksum: a torn write misses sectors, it never damages
them. What no journal can tell: that its last write, with nothing behind it, was lost by the disk
after it had said otherwise.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from distinv.entry import HASH_BYTES, Ballot, Entry, Position
from distinv.storage.api import BaseRecord, BirthRecord, EntryRecord, Record

FORMAT_VERSION = 2
_VERSIONS_READ = (1, 2)
SECTOR_BYTES = 512

_MAGIC = b"distinvJ"
_FILE_HEAD = struct.Struct(">8sII")  # magic, version, checksum of both: the same in every version
_SEGMENT_HEAD = struct.Struct(">QQ")  # number, size of the file in bytes
_CHECKSUM = struct.Struct(">I")
_SECTOR_HEAD = struct.Struct(">IQQ")  # part, write number, previous number; behind a checksum
_SECTOR = struct.Struct(">IIQQ")  # both at once
_WRITE_HEAD = struct.Struct(f">Q{HASH_BYTES}s")  # bytes of records, hash
_RECORD_HEAD = struct.Struct(">IQQ")  # bytes of body, promised term and node; behind a checksum

SECTOR_HEAD_BYTES = _CHECKSUM.size + _SECTOR_HEAD.size
SECTOR_ROOM_BYTES = SECTOR_BYTES - SECTOR_HEAD_BYTES
WRITE_HEAD_BYTES = _WRITE_HEAD.size
RECORD_HEAD_BYTES = _CHECKSUM.size + _RECORD_HEAD.size

_ZEROS = bytes(SECTOR_BYTES)
_MANY_ZEROS = bytes(64 * SECTOR_BYTES)
_not_zero = re.compile(rb"[^\0]")


class OpeningRecord(msgspec.Struct, frozen=True, array_like=True, tag=100):
    """What was known when a segment began; the promise stands in the record's head."""

    previous_hash: bytes
    """Of the write before."""
    before: Position
    """The end of the log."""
    node: int | None
    cluster_name: str | None
    birth: BirthRecord
    base: BaseRecord | None = None
    """In version 1 there was none, and no place for one."""


StoredRecord: TypeAlias = Record | OpeningRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[StoredRecord] = msgspec.msgpack.Decoder(StoredRecord)


class DamagedError(Exception):
    """The bytes at `sector` of a segment (or of the piece read) are not what was written."""

    def __init__(self, sector: int, what: str) -> None:
        super().__init__(what)
        self.sector = sector


class UnknownVersionError(Exception):
    """An undamaged file of another format; `version` says which."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class SectorHead(NamedTuple):
    part: int
    number: int
    previous: int


class StoredWrite(NamedTuple):
    """A complete write. Its hash is not verified yet: the chain is the caller's."""

    head: SectorHead
    sectors: int
    hash: bytes
    body: bytes


class Stored(NamedTuple):
    """A record as it was found in a write's body, at `offset`, with `size_bytes` in all."""

    promised: Ballot
    record: StoredRecord
    offset: int
    size_bytes: int


# --- the file's head --------------------------------------------------------------------------


def encode_file_head(segment: int, size_bytes: int, version: int = FORMAT_VERSION) -> bytes:
    """The first sector of segment `segment`, a file of `size_bytes`."""
    start = _FILE_HEAD.pack(_MAGIC, version, crc32(_MAGIC + version.to_bytes(4, "big")))
    return (start + _SEGMENT_HEAD.pack(segment, size_bytes)).ljust(SECTOR_BYTES, b"\0")


def check_file_head(data: bytes, segment: int) -> int:
    """The format's version in `data`, the file of segment `segment`.

    Raises UnknownVersionError, and DamagedError for anything but that file.
    """
    for version in _VERSIONS_READ:
        if data[:SECTOR_BYTES] == encode_file_head(segment, len(data), version):
            return version
    if len(data) >= _FILE_HEAD.size:
        magic, version, checksum = _FILE_HEAD.unpack_from(data)
        true = crc32(magic + version.to_bytes(4, "big")) == checksum
        if magic == _MAGIC and true and version not in _VERSIONS_READ:
            raise UnknownVersionError(version)
    raise DamagedError(0, f"this is not segment {segment}, or its size has changed")


# --- records ----------------------------------------------------------------------------------


def encode_record(record: StoredRecord, promised: Ballot) -> bytes:
    """A record with its head, which repeats `promised`, the promise in force after it."""
    body = _encoder.encode(record)
    head = _RECORD_HEAD.pack(len(body), promised.term, promised.node)
    return _CHECKSUM.pack(crc32(body, crc32(head))) + head + body


def decode_record(data: bytes | memoryview) -> tuple[Ballot, StoredRecord, int]:
    """The record at the front of `data` and its promise and size. Raises DamagedError."""
    if len(data) < RECORD_HEAD_BYTES:
        raise DamagedError(0, "a record is cut short")
    (checksum,) = _CHECKSUM.unpack_from(data)
    length, term, node = _RECORD_HEAD.unpack_from(data, _CHECKSUM.size)
    size_bytes = RECORD_HEAD_BYTES + length
    if size_bytes > len(data):
        raise DamagedError(0, "a record is cut short")
    if crc32(data[_CHECKSUM.size : size_bytes]) != checksum:
        raise DamagedError(0, "a record that was written whole does not match its checksum")
    try:
        record = _decoder.decode(data[RECORD_HEAD_BYTES:size_bytes])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(0, f"a record cannot be read ({error})") from error
    return Ballot(term, node), record, size_bytes


def decode_records(body: bytes) -> Iterator[Stored]:
    """The records of a write. Raises DamagedError."""
    view = memoryview(body)
    offset = 0
    while offset < len(body):
        promised, record, size_bytes = decode_record(view[offset:])
        yield Stored(promised, record, offset, size_bytes)
        offset += size_bytes


def decode_entry(data: bytes, index: int) -> Entry:
    """The entry in the record `data`, which must be the one at `index`. Raises DamagedError."""
    _, record, size_bytes = decode_record(data)
    if size_bytes != len(data) or not isinstance(record, EntryRecord):
        raise DamagedError(0, "an entry was expected here")
    if record.entry.index != index:
        raise DamagedError(0, f"entry {index} was expected here, not entry {record.entry.index}")
    return record.entry


# --- writes -----------------------------------------------------------------------------------


def sectors_of(body_bytes: int) -> int:
    """How many sectors a write with `body_bytes` of records takes."""
    return -(-(WRITE_HEAD_BYTES + body_bytes) // SECTOR_ROOM_BYTES)


def hash_of_write(previous_hash: bytes, number: int, previous: int, body: bytes) -> bytes:
    """The chain's next link (BLAKE2b, 16 bytes)."""
    digest = hashlib.blake2b(previous_hash, digest_size=HASH_BYTES)
    digest.update(_SECTOR_HEAD.pack(0, number, previous))
    digest.update(body)
    return digest.digest()


def encode_write(
    number: int, previous: int, previous_hash: bytes, body: bytes
) -> tuple[bytes, bytes]:
    """The sectors of write `number`, and its hash."""
    digest = hash_of_write(previous_hash, number, previous, body)
    count = sectors_of(len(body))
    stream = (_WRITE_HEAD.pack(len(body), digest) + body).ljust(count * SECTOR_ROOM_BYTES, b"\0")
    pieces: list[bytes] = []
    for part in range(count):
        start = part * SECTOR_ROOM_BYTES
        content = _SECTOR_HEAD.pack(part, number, previous)
        content += stream[start : start + SECTOR_ROOM_BYTES]
        pieces += (_CHECKSUM.pack(crc32(content)), content)
    return b"".join(pieces), digest


def record_place(start_sector: int, offset: int) -> int:
    """Where in its file a record lies, at `offset` of the body of the write at `start_sector`."""
    sectors, rest = divmod(WRITE_HEAD_BYTES + offset, SECTOR_ROOM_BYTES)
    return (start_sector + sectors) * SECTOR_BYTES + SECTOR_HEAD_BYTES + rest


def sectors_spanned(place: int, size_bytes: int) -> tuple[int, int]:
    """The first sector, and the one after the last, of `size_bytes` of records at `place`."""
    first, rest = divmod(place, SECTOR_BYTES)
    return first, first - (-(rest - SECTOR_HEAD_BYTES + size_bytes) // SECTOR_ROOM_BYTES)


def extract(data: bytes, place: int, size_bytes: int) -> bytes:
    """`size_bytes` of records from `place` on in `data`, sector heads left out."""
    at, rest = place, size_bytes
    pieces = []
    while rest > 0:
        piece = data[at : at + min(rest, SECTOR_BYTES - at % SECTOR_BYTES)]
        if not piece:
            raise DamagedError(at // SECTOR_BYTES, "the file ends in the middle of a record")
        pieces.append(piece)
        rest -= len(piece)
        at += len(piece) + SECTOR_HEAD_BYTES
    return b"".join(pieces)


# --- sectors ----------------------------------------------------------------------------------


def read_sector_head(data: bytes, sector: int) -> SectorHead | None:
    """What `sector` says of itself; None where nothing was ever written. Raises DamagedError."""
    at = sector * SECTOR_BYTES
    checksum, part, number, previous = _SECTOR.unpack_from(data, at)
    if crc32(data[at + _CHECKSUM.size : at + SECTOR_BYTES]) == checksum:
        return SectorHead(part, number, previous)
    if data.startswith(_ZEROS, at):
        return None
    raise DamagedError(sector, "a sector that was written whole does not match its checksum")


def next_written(data: bytes, sector: int) -> int | None:
    """The first sector from `sector` on that is not all zeros."""
    at = sector * SECTOR_BYTES
    while data.startswith(_MANY_ZEROS, at):
        at += len(_MANY_ZEROS)
    found = _not_zero.search(data, at)
    return None if found is None else found.start() // SECTOR_BYTES


def read_write(data: bytes, sector: int, head: SectorHead) -> StoredWrite | None:
    """The write whose first sector is `sector` with `head`; None when sectors of it are missing.

    Raises DamagedError when it is damaged or reaches beyond the segment.
    """
    start = sector * SECTOR_BYTES + SECTOR_HEAD_BYTES
    length, digest = _WRITE_HEAD.unpack_from(data, start)
    count = sectors_of(length)
    if sector + count > len(data) // SECTOR_BYTES:
        raise DamagedError(sector, "a write is longer than its segment")
    complete = True
    for part in range(1, count):
        found = read_sector_head(data, sector + part)
        complete = found == (part, head.number, head.previous) and complete
    if not complete:
        return None
    body = extract(data, start, WRITE_HEAD_BYTES + length)[WRITE_HEAD_BYTES:]
    return StoredWrite(head, count, digest, body)
