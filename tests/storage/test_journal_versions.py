"""Directories of format version 1, which knew no base: read, and gone on with in version 2."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from storage_kit import SMALL_SEGMENT, journal, look, reopened, segment_names

from distinv.entry import NO_BALLOT, NO_HASH, ORIGIN, Position
from distinv.errors import CorruptLog
from distinv.storage.api import BirthRecord
from distinv.storage.format import (
    SECTOR_BYTES,
    check_file_head,
    encode_file_head,
    encode_record,
    encode_write,
)
from distinv.testing.conformance.written import (
    BALLOT,
    BIRTH,
    IDENTITY,
    PROMISE,
    base_at,
    contents_of,
    log_of,
    records_of,
)

ENTRIES = log_of(b"a" * 600, b"b" * 1_700, b"c" * 300)
WHOLE = (IDENTITY.node, BALLOT, tuple(ENTRIES), BIRTH, None)


class FirstOpening(msgspec.Struct, frozen=True, array_like=True, tag=100):
    """What a segment of version 1 opens with."""

    previous_hash: bytes
    before: Position
    node: int | None
    cluster_name: str | None
    birth: BirthRecord


def segment_of_version_1(number: int, *writes: bytes, cut: int = 0) -> bytes:
    content = b"".join(writes)
    content = content[: len(content) - cut]
    return (encode_file_head(number, SMALL_SEGMENT, 1) + content).ljust(SMALL_SEGMENT, b"\0")


def directory_of_version_1(path: Path, *, torn: bool = False) -> None:
    """Two segments in use, and a third prepared."""
    opening = FirstOpening(NO_HASH, ORIGIN, None, None, BirthRecord(None, ()))
    body = encode_record(opening, NO_BALLOT) + encode_record(IDENTITY, NO_BALLOT)
    body += b"".join(encode_record(each, BALLOT) for each in (PROMISE, BIRTH))
    first, digest = encode_write(1, 0, NO_HASH, body)
    body = b"".join(encode_record(each, BALLOT) for each in records_of(ENTRIES[:1]))
    second, digest = encode_write(2, 1, digest, body)
    opening = FirstOpening(digest, ENTRIES[0].position, IDENTITY.node, IDENTITY.cluster_name, BIRTH)
    body = encode_record(opening, BALLOT)
    body += b"".join(encode_record(each, BALLOT) for each in records_of(ENTRIES[1:]))
    third, digest = encode_write(3, 2, digest, body)
    begun = encode_write(4, 3, digest, bytes(700))[0][:SECTOR_BYTES]
    (path / "journal").mkdir(parents=True)
    for number, content in enumerate(
        (
            segment_of_version_1(1, first, second),
            segment_of_version_1(2, third, begun) if torn else segment_of_version_1(2, third),
            segment_of_version_1(3),
        ),
        1,
    ):
        file_of(path, number).write_bytes(content)


def file_of(path: Path, number: int) -> Path:
    return path / "journal" / f"{number:010d}.segment"


def versions(path: Path) -> list[int]:
    return [
        check_file_head(file_of(path, number).read_bytes(), number)
        for number in segment_names(path)
    ]


@pytest.mark.parametrize("torn", [False, True])
def test_a_directory_of_version_1_is_read_and_left_alone(torn: bool, tmp_path: Path) -> None:
    directory_of_version_1(tmp_path, torn=torn)
    before = {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()}
    found, is_torn = look(tmp_path)
    assert (found.node, found.promised, found.entries, found.birth, found.base) == WHOLE
    assert is_torn == torn
    assert before == {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()}


@pytest.mark.parametrize("torn", [False, True])
def test_it_goes_on_in_version_2(torn: bool, tmp_path: Path) -> None:
    """Nothing more is written to the old segments; what was prepared is prepared anew."""
    directory_of_version_1(tmp_path, torn=torn)
    old = [file_of(tmp_path, number).read_bytes() for number in (1, 2)]
    storage, recovered = reopened(tmp_path)
    more = log_of(b"d" * 400, b"e" * 400, after=ENTRIES[-1].position)
    storage.commit(records_of(more[:1]))
    storage.close()
    assert versions(tmp_path)[:3] == [1, 1, 2]
    assert [file_of(tmp_path, number).read_bytes() for number in (1, 2)] == old
    assert look(tmp_path)[0].entries == (*ENTRIES, *more[:1])
    storage, recovered = reopened(tmp_path)
    assert not recovered.torn
    storage.commit(records_of(more[1:]))
    assert storage.read(1, 5, 10_000) == [*ENTRIES, *more]
    storage.close()
    assert look(tmp_path)[0].entries == (*ENTRIES, *more)


@pytest.mark.parametrize("at", [1, 3])
def test_it_is_compacted(at: int, tmp_path: Path) -> None:
    directory_of_version_1(tmp_path)
    storage, _ = reopened(tmp_path)
    base = base_at(ENTRIES[at - 1].position)
    storage.commit([base])
    storage.close()
    assert versions(tmp_path)[: 4 - at] == ([1, 2] if at == 1 else [2])[: 4 - at]
    storage, recovered = reopened(tmp_path)
    found = contents_of(recovered)
    assert (found.base, found.entries, found.birth) == (base, tuple(ENTRIES[at:]), BIRTH)
    storage.commit(records_of(log_of(b"d", after=ENTRIES[-1].position)))
    storage.close()
    assert [entry.index for entry in look(tmp_path)[0].entries] == list(range(at + 1, 5))


def test_one_that_was_never_used(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    file_of(tmp_path, 1).write_bytes(segment_of_version_1(1))
    storage = journal(tmp_path)
    assert storage.recover().node is None
    storage.commit([IDENTITY])
    storage.close()
    assert versions(tmp_path)[0] == 2
    assert look(tmp_path)[0].node == IDENTITY.node


def test_one_whose_first_write_is_torn(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    opening = FirstOpening(NO_HASH, ORIGIN, None, None, BirthRecord(None, ()))
    write, _ = encode_write(1, 0, NO_HASH, encode_record(opening, NO_BALLOT) + bytes(600))
    file_of(tmp_path, 1).write_bytes(segment_of_version_1(1, write, cut=SECTOR_BYTES))
    assert look(tmp_path)[1], "torn"
    storage, _ = reopened(tmp_path)
    storage.commit([IDENTITY])
    storage.close()
    found, torn = look(tmp_path)
    assert (found.node, torn, versions(tmp_path)[:2]) == (IDENTITY.node, False, [1, 2])


def test_a_flipped_bit_in_it_is_found(tmp_path: Path) -> None:
    directory_of_version_1(tmp_path)
    for number in (1, 2, 3):
        data = file_of(tmp_path, number).read_bytes()
        for at in range(0, len(data), 41):
            flipped = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
            file_of(tmp_path, number).write_bytes(flipped)
            with pytest.raises(CorruptLog):
                look(tmp_path)
        file_of(tmp_path, number).write_bytes(data)
    assert look(tmp_path)[0].entries == tuple(ENTRIES)
