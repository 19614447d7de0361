"""The journal against the storage in memory: any commits, any crashes, the same content."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from storage_kit import CrashingFiles, journal

from distinv.entry import ORIGIN, Ballot, Position, Voter, VoterSet, make_entry
from distinv.errors import StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    TruncateRecord,
)
from distinv.storage.memory import MemoryStorage
from distinv.testing.conformance.written import base_at, contents_of

ballots = st.builds(Ballot, st.integers(1, 2**64 - 1), st.integers(1, 2**63 - 1))
births = st.builds(
    BirthRecord,
    st.none() | st.just(VoterSet("shop", 1, (Voter(1, "a"), Voter(2, "b" * 200)))),
    st.lists(st.integers(1, 2**63 - 1), max_size=40).map(tuple),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("entry"), st.integers(0, 700)),
        st.tuples(st.just("entry"), st.sampled_from([3_500, 9_000])),
        st.tuples(st.just("truncate"), st.integers(0, 8)),
        st.tuples(st.just("promise"), ballots),
        st.tuples(st.just("birth"), births),
        st.tuples(st.just("compact"), st.integers(0, 8)),
        st.tuples(st.just("install"), st.integers(-8, 8)),
    ),
    max_size=6,
)


class JournalAndMemory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.files = CrashingFiles()
        self.memory = MemoryStorage()
        self.journal = journal(Path(self.directory.name), self.files)
        self.written = 0
        self.open()

    def open(self) -> None:
        found, expected = self.journal.recover(), self.memory.recover()
        assert contents_of(found) == contents_of(expected)
        assert found.torn == expected.torn
        self.log = list(expected.entries)
        self.base = expected.base

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()

    @initialize(name=st.text(max_size=20))
    def identify(self, name: str) -> None:
        self.journal.commit([IdentityRecord(5, name)])
        self.memory.commit([IdentityRecord(5, name)])

    @property
    def before(self) -> Position:
        return self.base.position if self.base else ORIGIN

    @property
    def last(self) -> Position:
        return self.log[-1].position if self.log else self.before

    def moved_base(self, kind: str, distance: int) -> BaseRecord | None:
        """One that the log holds, or one of another history below or above its end."""
        if kind == "compact":
            keep = max(0, len(self.log) - distance)
            if not keep:
                return self.base
            self.base = base_at(self.log[keep - 1].position)
            del self.log[:keep]
        else:
            self.written += 1
            index = max(self.before.index + 1, self.last.index + distance)
            digest = self.written.to_bytes(16, "big")
            self.base = base_at(Position(index, self.last.ballot, digest), self.written)
            self.log.clear()
        return self.base

    def records(self, chosen: list[tuple[str, object]]) -> list[Record]:
        """Records that fit behind the log, and the log after them."""
        made: list[Record] = []
        for kind, value in chosen:
            if kind == "entry":
                assert isinstance(value, int)
                self.written += 1
                after = self.last
                payload = (b"%d " % self.written) * (value // 3)
                ballot = Ballot(after.ballot.term + self.written % 2, 1)
                self.log.append(make_entry(after, ballot, self.written, 2, payload))
                made.append(EntryRecord(self.log[-1]))
            elif kind == "truncate":
                assert isinstance(value, int)
                length = max(0, len(self.log) - value)
                del self.log[length:]
                made.append(TruncateRecord(self.last.index))
            elif kind in ("compact", "install"):
                assert isinstance(value, int)
                if (base := self.moved_base(kind, value)) is not None:
                    made.append(base)
            elif kind == "promise":
                assert isinstance(value, Ballot)
                made.append(PromiseRecord(value))
            else:
                assert isinstance(value, BirthRecord)
                made.append(value)
        return made

    @rule(chosen=steps)
    def commit(self, chosen: list[tuple[str, object]]) -> None:
        records = self.records(chosen)
        self.journal.commit(records)
        self.memory.commit(records)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.memory.close()
        self.open()

    @rule(chosen=steps.filter(bool), subset=st.integers(0, 2**24 - 1))
    def crash(self, chosen: list[tuple[str, object]], subset: int) -> None:
        records = self.records(chosen)
        if not records:
            return  # a compaction of nothing
        self.files.survives = lambda part: subset >> part % 24 & 1 == 1
        with pytest.raises(StorageError, match="crashed while writing"):
            self.journal.commit(records)
        self.files.survives = None
        self.journal.close()
        self.memory.stage(records)
        is_whole = self.files.sectors_lost == 0
        self.memory.crash(int(is_whole), torn=self.files.sectors_kept > 0)
        self.open()

    @precondition(lambda self: self.log)
    @rule(first=st.integers(1, 100), count=st.integers(1, 50), max_bytes=st.integers(0, 5_000))
    def read(self, first: int, count: int, max_bytes: int) -> None:
        at = first % len(self.log)
        first = self.before.index + 1 + at
        last = min(self.last.index, first + count - 1)
        found = self.journal.read(first, last, max_bytes)
        assert 1 <= len(found) <= last - first + 1
        assert found == self.log[at : at + len(found)]
        assert sum(len(entry.payload) for entry in found[1:]) <= max_bytes

    @invariant()
    def the_logs_are_equal(self) -> None:
        if self.log:
            whole = (self.before.index + 1, self.last.index, 1 << 30)
            assert self.journal.read(*whole) == self.memory.read(*whole) == self.log
        for storage in (self.journal, self.memory):
            with pytest.raises(StorageError):
                storage.read(self.before.index, self.last.index, 100)


JournalAndMemory.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow],
)
TestJournalAndMemory = JournalAndMemory.TestCase
