"""Commits cut off by a crash: sectors reach the disk in any order, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from zlib import crc32

import msgspec
import pytest
from storage_kit import CrashingFiles, journal, look, reopened

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, Position
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import EntryRecord, PromiseRecord, Record
from distinv.storage.files import Files
from distinv.storage.format import (
    SECTOR_BYTES,
    encode_file_head,
    encode_record,
    encode_write,
)
from distinv.storage.scan import Scan, scan
from distinv.testing.conformance.written import (
    BALLOT,
    BIRTH,
    IDENTITY,
    PROMISE,
    base_at,
    log_of,
    records_of,
)

Prepare = Callable[[Path, CrashingFiles], list[Record]]
"""Writes what comes before the last commit; returns the records of that."""


def as_the_first_write(path: Path, files: CrashingFiles) -> list[Record]:
    return [IDENTITY, PROMISE, *records_of(log_of(b"x" * 900))]


def within_a_segment(path: Path, files: CrashingFiles) -> list[Record]:
    storage = journal(path, files)
    storage.recover()
    first = log_of(b"first")
    storage.commit([IDENTITY, PROMISE, *records_of(first)])
    storage.close()
    return [
        PromiseRecord(Ballot(9, 9)),
        *records_of(log_of(b"x" * 900, b"y" * 500, after=first[-1].position)),
        BIRTH,
    ]


def as_the_first_of_a_segment(path: Path, files: CrashingFiles) -> list[Record]:
    storage = journal(path, files)
    storage.recover()
    first = log_of(b"x" * 1_000, b"y" * 1_000)
    storage.commit([IDENTITY, PROMISE, BIRTH, *records_of(first)])
    storage.close()
    return records_of(log_of(b"z" * 1_700, after=first[-1].position))


def larger_than_a_segment(path: Path, files: CrashingFiles) -> list[Record]:
    storage = journal(path, files)
    storage.recover()
    storage.commit([IDENTITY])
    storage.close()
    return records_of(log_of(b"x" * 5_000))


def members(subset: int) -> Callable[[int], bool]:
    """Whether the bit of a sector is set."""
    return lambda part: subset >> part % 24 & 1 == 1


def crash(path: Path, files: CrashingFiles, last: list[Record], kept: Callable[[int], bool]) -> int:
    """Commit `last` so that only some of its sectors are written; how many it has in all."""
    storage = journal(path, files)
    storage.recover()
    files.survives = kept
    with pytest.raises(StorageError, match="crashed while writing"):
        storage.commit(last)
    files.survives = None
    storage.close()
    return files.sectors_lost + files.sectors_kept


CASES = [as_the_first_write, within_a_segment, as_the_first_of_a_segment, larger_than_a_segment]


@pytest.mark.parametrize("prepare", CASES)
def test_a_commit_is_there_whole_or_not_at_all(prepare: Prepare, tmp_path: Path) -> None:
    """Every subset of the sectors of the last write, or many where there are too many."""
    random = Random(5)

    def outcome(name: str, kept: Callable[[int], bool]) -> tuple[Path, int]:
        path = tmp_path / name
        files = CrashingFiles()
        last = prepare(path, files)
        return path, crash(path, files, last, kept)

    before, count = outcome("before", lambda part: False)
    after, _ = outcome("after", lambda part: True)
    state_before, torn_before = look(before)
    state_after, torn_after = look(after)
    assert state_before != state_after
    assert not torn_before, "no sector of the last write was found"
    assert not torn_after
    every = range(1, 2**count - 1)
    subsets = every if len(every) <= 64 else random.sample(every, 64)
    for subset in subsets:
        path, _ = outcome(f"subset-{subset}", members(subset))
        assert look(path) == (state_before, True), f"sectors {subset:b}"


@pytest.mark.parametrize("prepare", CASES)
def test_the_journal_goes_on_after_a_torn_write(prepare: Prepare, tmp_path: Path) -> None:
    """Torn again and again, with a complete write in between: only complete ones are there."""
    random = Random(7)
    files = CrashingFiles()
    last = prepare(tmp_path, files)
    expected, is_torn = look(tmp_path)
    highest = 0
    for _ in range(12):
        crash(tmp_path, files, last, members(random.getrandbits(24) & ~random.choice((1, 2))))
        found, still_torn = look(tmp_path)
        assert found == expected
        is_torn = is_torn or files.sectors_kept > 0
        assert still_torn == is_torn
        seen = scan(files, tmp_path / "journal")
        assert seen.highest_number >= highest, "a number was forgotten"
        highest = seen.highest_number
        if random.random() < 0.5:
            storage, _ = reopened(tmp_path)
            storage.commit([PromiseRecord(Ballot(20, highest))])
            storage.close()
            expected, is_torn = look(tmp_path)
            assert expected.promised == Ballot(20, highest)
            assert not is_torn
            assert scan(files, tmp_path / "journal").last_number == highest + 1
            highest += 1
    storage, _ = reopened(tmp_path)
    storage.commit(last)
    storage.close()
    assert look(tmp_path)[0].entries != expected.entries


def test_no_sector_is_ever_written_twice(tmp_path: Path) -> None:
    """Recovery after a torn write leaves every byte that is there as it is."""
    files = CrashingFiles()
    last = within_a_segment(tmp_path, files)
    crash(tmp_path, files, last, lambda part: part in (1, 3))
    segment = tmp_path / "journal" / "0000000001.segment"
    torn = segment.read_bytes()
    storage, _ = reopened(tmp_path)
    assert segment.read_bytes() == torn
    storage.commit(last)
    storage.close()
    changed = segment.read_bytes()
    for start in range(0, len(torn), SECTOR_BYTES):
        sector = torn[start : start + SECTOR_BYTES]
        assert not any(sector) or sector == changed[start : start + SECTOR_BYTES]


# --- damage is not a torn end -----------------------------------------------------------------


@pytest.fixture(scope="module")
def three_segments() -> dict[str, bytes]:
    """The files of a journal with every kind of record and a torn write in the middle."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        files = CrashingFiles()
        crash(path, files, within_a_segment(path, files), lambda part: part == 0)
        storage, recovered = reopened(path)
        entries = list(recovered.entries)
        for size in (600, 900, 1_900, 30):
            entries += log_of(b"x" * size, after=entries[-1].position)
            storage.commit(records_of(entries[-1:]))
        storage.close()
        kept = {file.name: file.read_bytes() for file in (path / "journal").iterdir()}
        assert len(kept) == 3
        return kept


class FixedFiles(Files):
    """A directory in memory that can only be read."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = dict(contents)

    def names(self, path: Path) -> list[str]:
        return sorted(self.contents)

    def read_durable(self, path: Path) -> bytes:
        return self.contents[path.name]


def says_where_and_what_to_do(error: CorruptLog) -> bool:
    return ".segment, byte " in str(error) and "Keep the file" in str(error)


def verdict(contents: dict[str, bytes]) -> str:
    try:
        found = scan(FixedFiles(contents), Path("journal"))
    except CorruptLog as error:
        return "corrupt" if says_where_and_what_to_do(error) else str(error)
    return "torn" if found.torn else f"whole up to {found.last_number}"


def test_the_undamaged_journal_is_whole(three_segments: dict[str, bytes]) -> None:
    assert verdict(three_segments) == "whole up to 6"


def test_any_flipped_bit_is_found(three_segments: dict[str, bytes]) -> None:
    """In used and unused parts, in the last write and in the remains of a torn one."""
    for name, data in three_segments.items():
        for at in range(len(data)):
            if at % 64 and not any(data[at - at % SECTOR_BYTES :][:SECTOR_BYTES]):
                continue  # of what was never written, a few will do
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            assert verdict({**three_segments, name: bytes(flipped)}) == "corrupt", (name, at)


def written_sectors(contents: dict[str, bytes]) -> list[tuple[str, int]]:
    return [
        (name, at)
        for name in sorted(contents)
        for at in range(SECTOR_BYTES, len(contents[name]), SECTOR_BYTES)
        if any(contents[name][at : at + SECTOR_BYTES])
    ]


def with_sector(
    contents: dict[str, bytes], where: tuple[str, int], what: bytes
) -> dict[str, bytes]:
    name, at = where
    data = contents[name]
    return {**contents, name: data[:at] + what + data[at + SECTOR_BYTES :]}


def test_a_lost_sector_of_an_earlier_write_is_found(three_segments: dict[str, bytes]) -> None:
    outcomes = [
        verdict(with_sector(three_segments, where, bytes(SECTOR_BYTES)))
        for where in written_sectors(three_segments)
    ]
    remains_of_the_torn_write = 1
    assert outcomes[1] == "whole up to 6"
    del outcomes[remains_of_the_torn_write]
    assert outcomes[-1] == "whole up to 5", "a lost last write of one sector cannot be told"
    assert set(outcomes[:-1]) == {"corrupt"}


def test_a_lost_sector_before_a_torn_write_is_found(tmp_path: Path) -> None:
    """The torn write itself is the proof that the one before it was complete."""
    files = CrashingFiles()
    last = within_a_segment(tmp_path, files)
    before = {file.name: file.read_bytes() for file in (tmp_path / "journal").iterdir()}
    crash(tmp_path, files, last, lambda part: part == 2)
    torn = {file.name: file.read_bytes() for file in (tmp_path / "journal").iterdir()}
    assert verdict(torn) == "torn"
    complete = written_sectors(before)
    assert len(complete) == 1
    assert verdict(with_sector(torn, complete[0], bytes(SECTOR_BYTES))) == "corrupt"


def test_a_sector_in_a_wrong_place_is_found(three_segments: dict[str, bytes]) -> None:
    places = written_sectors(three_segments)
    for where in places:
        for other, at in places:
            what = three_segments[other][at : at + SECTOR_BYTES]
            if (other, at) != where:
                assert verdict(with_sector(three_segments, where, what)) == "corrupt"


def test_a_sector_behind_the_end_that_belongs_elsewhere_is_found(
    three_segments: dict[str, bytes],
) -> None:
    *_, (last, end) = written_sectors(three_segments)
    for name, at in written_sectors(three_segments):
        what = three_segments[name][at : at + SECTOR_BYTES]
        behind = (last, end + SECTOR_BYTES)
        assert verdict(with_sector(three_segments, behind, what)) == "corrupt"


def forged(path: Path, write: Callable[[Scan], bytes]) -> str:
    """The verdict when `write` stands behind the last complete write of a journal."""
    storage = journal(path)
    storage.recover()
    storage.commit([IDENTITY, PROMISE])
    storage.close()
    found = scan(CrashingFiles(), path / "journal")
    with (path / "journal" / "0000000001.segment").open("r+b") as file:
        file.seek(found.sector * SECTOR_BYTES)
        file.write(write(found))
    return verdict({file.name: file.read_bytes() for file in (path / "journal").iterdir()})


BIRTH_BYTES = encode_record(BIRTH, PROMISE.ballot)


def record_around(body: bytes) -> bytes:
    """A record that is true to its checksum, whatever its body."""
    head = len(body).to_bytes(4, "big") + encode_record(BIRTH, BALLOT)[8:24]
    return crc32(head + body).to_bytes(4, "big") + head + body


def test_a_true_write_is_accepted(tmp_path: Path) -> None:
    """The forger can write: what the other forgeries are refused for is what is wrong in them."""
    assert (
        forged(tmp_path, lambda found: encode_write(2, 1, found.last_hash, BIRTH_BYTES)[0])
        == "whole up to 2"
    )


@pytest.mark.parametrize(
    ("what", "previous", "body"),
    [
        ("another chain", bytes(16), BIRTH_BYTES),
        ("another promise", None, encode_record(BIRTH, Ballot(9, 9))),
        (
            "an entry that does not follow",
            None,
            encode_record(records_of(log_of(b"a", b"b"))[1], BALLOT),
        ),
        (
            "an entry with too large a number",
            None,
            encode_record(EntryRecord(Entry(1, BALLOT, 0, 300, b"", bytes(16))), BALLOT),
        ),
        ("a base before the log", None, encode_record(base_at(ORIGIN), BALLOT)),
        ("a record cut short", None, BIRTH_BYTES + BIRTH_BYTES[:20]),
        ("a record cut shorter", None, BIRTH_BYTES + BIRTH_BYTES[:40]),
        ("a text that is none", None, record_around(b"\x93\x01\x07\xa1\xff")),
        ("an array in an array in …", None, record_around(b"\x93\x04\x00" + b"\x91" * 1_500)),
        ("a record with a wrong checksum", None, BIRTH_BYTES[:-1] + b"?"),
        ("no record", None, b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_whole_write_with_wrong_content_is_found(
    what: str, previous: bytes | None, body: bytes, tmp_path: Path
) -> None:
    """True to its sectors' checksums, which is what a bug or a mixed-up file would leave."""
    assert (
        forged(tmp_path, lambda found: encode_write(2, 1, previous or found.last_hash, body)[0])
        == "corrupt"
    )


def test_an_opening_in_the_middle_is_found(tmp_path: Path) -> None:
    def write(found: Scan) -> bytes:
        opening = encode_record(found.state.opening(found.last_hash), BALLOT)
        return encode_write(2, 1, found.last_hash, opening + BIRTH_BYTES)[0]

    assert forged(tmp_path, write) == "corrupt"


def test_a_write_longer_than_its_segment_is_found(tmp_path: Path) -> None:
    many = encode_record(records_of(log_of(b"x" * 5_000))[0], BALLOT)
    first = slice(0, SECTOR_BYTES)
    assert (
        forged(tmp_path, lambda found: encode_write(2, 1, found.last_hash, many)[0][first])
        == "corrupt"
    )


def second_segment(path: Path, promised: Ballot, **changes: object) -> str:
    """The verdict on a second segment whose opening has these changes, and is true otherwise."""
    storage = journal(path)
    storage.recover()
    storage.commit([IDENTITY, PROMISE])
    storage.close()
    first = (path / "journal" / "0000000001.segment").read_bytes()
    found = scan(CrashingFiles(), path / "journal")
    opening = msgspec.structs.replace(found.state.opening(found.last_hash), **changes)
    body = encode_record(opening, promised) + BIRTH_BYTES
    write, _ = encode_write(2, 1, opening.previous_hash, body)
    second = (encode_file_head(2, len(first)) + write).ljust(len(first), b"\0")
    return verdict({"0000000001.segment": first, "0000000002.segment": second})


def test_a_true_opening_is_accepted(tmp_path: Path) -> None:
    assert second_segment(tmp_path, BALLOT) == "whole up to 2"


@pytest.mark.parametrize(
    "changes",
    [
        {"previous_hash": bytes(16)},
        {"before": Position(1, BALLOT, bytes(16))},
        {"node": 8},
        {"cluster_name": "other"},
        {"birth": BIRTH},
        {"base": base_at(Position(1, BALLOT, bytes(16)))},
    ],
)
def test_a_segment_with_a_wrong_opening_is_found(
    changes: dict[str, object], tmp_path: Path
) -> None:
    """The file of another journal in the place of the second segment."""
    assert second_segment(tmp_path, BALLOT, **changes) == "corrupt"


def test_an_opening_with_another_promise_is_found(tmp_path: Path) -> None:
    assert second_segment(tmp_path, Ballot(2, 7)) == "corrupt"


def test_a_segment_without_an_opening_is_found(tmp_path: Path) -> None:
    first = journal(tmp_path)
    first.recover()
    first.close()
    segment = tmp_path / "journal" / "0000000001.segment"
    write, _ = encode_write(1, 0, bytes(16), encode_record(BIRTH, NO_BALLOT))
    data = segment.read_bytes()
    contents = {segment.name: data[:SECTOR_BYTES] + write + data[SECTOR_BYTES + len(write) :]}
    assert verdict(contents) == "corrupt"


def test_an_opening_tells_all_that_is_not_in_the_log(tmp_path: Path) -> None:
    """Before the first entry nothing but the opening is needed: what compaction builds on."""
    storage = journal(tmp_path)
    storage.recover()
    storage.commit([IDENTITY, PROMISE, BIRTH])
    for number in range(40):
        storage.commit([PromiseRecord(Ballot(10, number))])
    storage.close()
    expected, _ = look(tmp_path)
    oldest = tmp_path / "journal" / "0000000001.segment"
    assert expected.promised == Ballot(10, 39)
    oldest.unlink()
    assert look(tmp_path) == (expected, False)


def test_a_missing_or_shortened_file_is_found(three_segments: dict[str, bytes]) -> None:
    first, second, third = sorted(three_segments)
    assert verdict({first: three_segments[first], third: three_segments[third]}) == "corrupt"
    for name in (first, second, third):
        for size in (0, 10, SECTOR_BYTES, len(three_segments[name]) - SECTOR_BYTES):
            short = {**three_segments, name: three_segments[name][:size]}
            assert verdict(short) == "corrupt"
    swapped = {
        **three_segments,
        first: three_segments[second],
        second: three_segments[first],
    }
    assert verdict(swapped) == "corrupt"


def test_a_missing_beginning_is_found(tmp_path: Path) -> None:
    storage = journal(tmp_path)
    storage.recover()
    entries = log_of(*(bytes([number]) * 900 for number in range(12)))
    for entry in entries:
        storage.commit(records_of([entry]))
    storage.close()
    (tmp_path / "journal" / "0000000001.segment").unlink()
    with pytest.raises(CorruptLog, match="0000000001"):
        reopened(tmp_path)


def test_a_damaged_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    storage = journal(tmp_path)
    storage.recover()
    storage.commit([IDENTITY, PROMISE])
    storage.close()
    segment = tmp_path / "journal" / "0000000001.segment"
    data = bytearray(segment.read_bytes())
    data[SECTOR_BYTES + 60] ^= 4
    segment.write_bytes(data)
    for _ in range(2):
        with pytest.raises(CorruptLog, match="byte 512"):
            reopened(tmp_path)
    assert segment.read_bytes() == data
    data[SECTOR_BYTES + 60] ^= 4
    segment.write_bytes(data)
    storage, recovered = reopened(tmp_path)
    assert recovered.node == IDENTITY.node
    storage.close()
