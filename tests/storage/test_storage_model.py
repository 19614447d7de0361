"""The journal against the storage in memory: any commits, any crashes, the same content."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from storage_kit import CrashingFiles, journal

from distinv.entry import ORIGIN, Ballot, Voter, VoterSet, make_entry
from distinv.errors import StorageError
from distinv.storage.api import (
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    TruncateRecord,
)
from distinv.storage.memory import MemoryStorage
from distinv.testing.conformance.written import contents_of

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

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()

    @initialize(name=st.text(max_size=20))
    def identify(self, name: str) -> None:
        self.journal.commit([IdentityRecord(5, name)])
        self.memory.commit([IdentityRecord(5, name)])

    def records(self, chosen: list[tuple[str, object]]) -> list[Record]:
        """Records that fit behind the log, and the log after them."""
        made: list[Record] = []
        for kind, value in chosen:
            if kind == "entry":
                assert isinstance(value, int)
                self.written += 1
                after = self.log[-1].position if self.log else ORIGIN
                payload = (b"%d " % self.written) * (value // 3)
                ballot = Ballot(after.ballot.term + self.written % 2, 1)
                self.log.append(make_entry(after, ballot, self.written, 2, payload))
                made.append(EntryRecord(self.log[-1]))
            elif kind == "truncate":
                assert isinstance(value, int)
                index = max(0, len(self.log) - value)
                del self.log[index:]
                made.append(TruncateRecord(index))
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
        first = 1 + first % len(self.log)
        last = min(len(self.log), first + count - 1)
        found = self.journal.read(first, last, max_bytes)
        assert 1 <= len(found) <= last - first + 1
        assert found == self.log[first - 1 : first - 1 + len(found)]
        assert sum(len(entry.payload) for entry in found[1:]) <= max_bytes

    @invariant()
    def the_logs_are_equal(self) -> None:
        if self.log:
            everything = self.journal.read(1, len(self.log), 1 << 30)
            assert everything == self.memory.read(1, len(self.log), 1 << 30) == self.log


JournalAndMemory.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow],
)
TestJournalAndMemory = JournalAndMemory.TestCase
