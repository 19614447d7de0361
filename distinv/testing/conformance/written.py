"""What the storage suite writes into storages, and what it does to their files."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distinv.entry import (
    HASH_BYTES,
    NO_BALLOT,
    ORIGIN,
    Ballot,
    Entry,
    Position,
    Voter,
    VoterSet,
    make_entry,
)
from distinv.errors import StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    Recovered,
    Storage,
    TruncateRecord,
)

IDENTITY = IdentityRecord(7, "shop «süd»")
BALLOT = Ballot(3, 7)
PROMISE = PromiseRecord(BALLOT)
VOTERS = VoterSet("shop «süd»", 99, (Voter(7, "north"), Voter(8, "süd")))
BIRTH = BirthRecord(VOTERS, (5, 6))
BLOCK_BYTES = 512
COPY_TRIES = 100


class Contents(NamedTuple):
    """All that is recovered, but for whether the end was torn."""

    node: int | None
    cluster_name: str | None
    promised: Ballot
    entries: tuple[Entry, ...]
    birth: BirthRecord
    base: BaseRecord | None


BLANK = Contents(None, None, NO_BALLOT, (), BirthRecord(None, ()), None)


# --- logs and records -------------------------------------------------------------------------


def log_of(*payloads: bytes, after: Position = ORIGIN, ballot: Ballot = BALLOT) -> list[Entry]:
    """Entries that continue the log at `after`, one per payload."""
    entries: list[Entry] = []
    for payload in payloads:
        entries.append(make_entry(after, ballot, after.index * 10, 2, payload))
        after = entries[-1].position
    return entries


def records_of(entries: Sequence[Entry]) -> list[Record]:
    return [EntryRecord(entry) for entry in entries]


def base_at(position: Position, voters_index: int = 1) -> BaseRecord:
    return BaseRecord(position, position.index * 10, voters_index, BALLOT, VOTERS)


def end_of(entries: Sequence[Entry]) -> Position:
    return entries[-1].position if entries else ORIGIN


def contents_of(recovered: Recovered) -> Contents:
    return Contents(
        recovered.node,
        recovered.cluster_name,
        recovered.promised,
        tuple(recovered.entries),
        recovered.birth,
        recovered.base,
    )


def compare(when: str, found: Contents, expected: Contents) -> None:
    for name, is_there, should_be in zip(Contents._fields, found, expected, strict=True):
        assert is_there == should_be, f"{when}: {name} is {is_there!r} instead of {should_be!r}"


def agreeing(one: Sequence[Entry], other: Sequence[Entry]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def brief_of(found: Contents | None) -> str:
    if found is None:
        return "an error"
    birth = "blank" if found.birth == BLANK.birth else "a birth"
    after = f" after {found.base.position.index}" if found.base else ""
    entries = f"{len(found.entries)} entries{after}"
    return f"node {found.node}, promise {found.promised}, {entries}, {birth}"


def commits() -> list[tuple[list[Record], Contents]]:
    """Commits of every kind, and what is there after each."""
    entries = log_of(b"one", b"two" * 100, b"", b"four" * 200)
    other = log_of(b"2", b"3" * 900, after=entries[0].position, ballot=Ballot(4, 8))
    after, ballot = other[-1].position, Ballot(4, 8)
    later = log_of(*(bytes([number]) * 300 for number in range(6)), after=after, ballot=ballot)
    now = BLANK._replace(node=7, cluster_name="shop «süd»")
    story: list[tuple[list[Record], Contents]] = [([IDENTITY], now)]
    now = now._replace(birth=BIRTH)
    story.append(([BIRTH], now))
    now = now._replace(promised=BALLOT, entries=tuple(entries[:2]))
    story.append(([PROMISE, *records_of(entries[:2])], now))
    now = now._replace(entries=tuple(entries))
    story.append((records_of(entries[2:]), now))
    now = now._replace(promised=Ballot(4, 8), entries=(entries[0], *other))
    story.append(([PromiseRecord(Ballot(4, 8)), TruncateRecord(1), *records_of(other)], now))
    for start in range(0, len(later), 2):
        now = now._replace(entries=(*now.entries, *later[start : start + 2]))
        story.append((records_of(later[start : start + 2]), now))
    base = base_at(now.entries[4].position)
    now = now._replace(base=base, entries=now.entries[5:])
    story.append(([base], now))
    base = base_at(Position(20, Ballot(5, 8), b"h" * HASH_BYTES), 17)
    fresh = log_of(b"on", b"and on", after=base.position, ballot=Ballot(5, 8))
    now = now._replace(base=base, entries=tuple(fresh))
    story.append(([base, *records_of(fresh)], now))
    return story


def compacting(count: int) -> list[tuple[list[Record], Contents]]:
    """Commits that drop, every now and then, what lies more than seven entries back."""
    entries = log_of(*(b"x" * (number * 37 % 700) for number in range(1, count + 1)))
    now = BLANK._replace(node=7, cluster_name="shop «süd»")
    story: list[tuple[list[Record], Contents]] = [([IDENTITY], now)]
    for number in range(1, count + 1):
        records = records_of(entries[number - 1 : number])
        if number > 7 and number % 3 == 0:
            base = base_at(entries[number - 8].position)
            records.insert(number % 2, base)
            now = now._replace(base=base)
        first = now.base.position.index if now.base else 0
        now = now._replace(entries=tuple(entries[first:number]))
        story.append((records, now))
    return story


def misfits() -> dict[str, list[Record]]:
    first, second, third = log_of(b"a", b"b", b"c")
    altered = Entry(2, BALLOT, 10, 2, b"not b", second.hash)
    base = base_at(third.position)
    return {
        "a gap in the log": [EntryRecord(third)],
        "an entry that is there": [EntryRecord(first)],
        "a wrong hash": [EntryRecord(altered)],
        "truncated above the end": [TruncateRecord(2)],
        "truncated below the start": [TruncateRecord(-1)],
        "truncated below the base": [base, TruncateRecord(2)],
        "an entry below the base": [base, EntryRecord(second)],
        "a base below the base": [base, base_at(second.position)],
        "a base beside the base": [base, base_at(third.position._replace(hash=second.hash))],
        "another base in its place": [base, base_at(third.position, 2)],
        "a base before the first entry": [base_at(ORIGIN)],
        "another identity": [IdentityRecord(8, "shop")],
    }


def must_refuse(storage: Storage, what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except StorageError:
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {error!r} instead of StorageError") from error
    raise AssertionError(f"{what} is not refused by {type(storage).__name__}")


# --- files ------------------------------------------------------------------------------------


def files_in(directory: Path) -> list[Path]:
    """Those with something in them, in alphabetical order."""
    found = directory.rglob("*") if directory.exists() else ()
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def copy_live(directory: Path, copy: Path) -> None:
    """Copy what is in the directory, although a thread of the storage may rename files in it."""
    for tries_left in reversed(range(COPY_TRIES)):
        try:
            shutil.copytree(directory, copy)
            return
        except shutil.Error:  # a name that was listed is gone: it has another one by now
            if not tries_left:
                raise
            shutil.rmtree(copy)


def written_blocks(path: Path) -> Iterator[tuple[Path, int, int]]:
    """Blocks that are not all zeros, and the first one of those that are: where, and how long."""
    node = next(parent for parent in path.parents if parent.name == "node")
    data = path.read_bytes()
    blank = False
    for start in range(0, len(data), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES]
        if any(block) or not blank:
            blank = blank or not any(block)
            yield path.relative_to(node), start, len(block)


def flip_bit(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def killed_after(count: int, work: Callable[[Callable[[int], None]], None]) -> int:
    """Kill a process once it has said `count`; the last number that it said."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, at one's risk
        child = os.fork()
    if child == 0:
        try:
            work(lambda number: _say(writing, number))
        finally:
            os._exit(1)
    os.close(writing)
    last = 0
    with os.fdopen(reading, "rb") as said:
        while last < count and (line := said.readline()):
            last = int(line)
        os.kill(child, signal.SIGKILL)
        last = max([last, *map(int, said.read().split())])
    os.waitpid(child, 0)
    assert last >= count, "the process ended by itself"
    return last


def _say(writing: int, number: int) -> None:
    os.write(writing, b"%d\n" % number)
