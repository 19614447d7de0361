"""Tickets, held effects and the durable index, against a disk that is written for real."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scene import log_of

from distinv.core.durability import Durability
from distinv.core.events import Tell, Write
from distinv.entry import NO_BALLOT, Ballot, EntryKind, NodeId, make_entry
from distinv.storage.api import EntryRecord, PromiseRecord, Record, TruncateRecord

A_PROMISE = PromiseRecord(Ballot(1, NodeId(1)))


def an_effect(number: int) -> Tell:
    return Tell("info", str(number))


class Bench:
    """A log in memory, `Durability`, and what a disk would hold."""

    def __init__(self) -> None:
        self.log = log_of([1])
        self.disk = list(self.log)
        self.durability = Durability(1)
        self.writes: list[Write] = []
        self.recorded = self.on_disk = 0
        """How many records were made, and how many are durable."""
        self.held: list[tuple[int, Tell]] = []
        self.term = 0

    def do(self, kind: str, number: int) -> None:
        getattr(self, kind)(number)
        common = 0
        for mine, theirs in zip(self.log, self.disk, strict=False):
            if mine != theirs:
                break
            common += 1
        assert self.durability.durable_index <= common, "says durable what is not"
        if not self.writes and self.recorded == self.on_disk:
            assert self.durability.durable_index == len(self.log), "all is durable, and known"

    def _record(self, record: Record) -> None:
        self.recorded += 1
        self.durability.record(record)

    def append(self, number: int) -> None:
        self.term += 1
        ballot = Ballot(self.term, NodeId(1))
        entry = make_entry(self.log[-1].position, ballot, 0, EntryKind.NOOP, b"")
        self.log.append(entry)
        self._record(EntryRecord(entry))

    def promise(self, number: int) -> None:
        self._record(A_PROMISE)

    def truncate(self, number: int) -> None:
        index = max(1, len(self.log) - number)
        del self.log[index:]
        self.durability.truncated(index)
        self._record(TruncateRecord(index))

    def hold(self, number: int) -> None:
        effect = an_effect(len(self.held))
        given_back = self.durability.hold(effect)
        assert (given_back is effect) == (self.recorded == self.on_disk)
        if given_back is None:
            self.held.append((self.recorded, effect))

    def write(self, number: int) -> None:
        write = self.durability.take_write(len(self.log), now=0)
        if write is not None:
            self.writes.append(write)

    def sync(self, number: int) -> None:
        """The disk ends some writes, together."""
        done = self.writes[: number + 1]
        if not done:
            return
        self.writes = self.writes[number + 1 :]
        for write in done:
            for record in write.records:
                self.on_disk += 1
                if isinstance(record, EntryRecord):
                    self.disk.append(record.entry)
                elif isinstance(record, TruncateRecord):
                    del self.disk[record.index :]
        released = self.durability.persisted(done[-1].ticket, now=0)
        due = [effect for records, effect in self.held if records <= self.on_disk]
        assert released == due, "released too early, too late, or out of order"
        self.held = [each for each in self.held if each[0] > self.on_disk]


kinds = st.sampled_from(["append", "promise", "truncate", "hold", "write", "write", "sync"])


@given(st.lists(st.tuples(kinds, st.integers(0, 3)), max_size=60))
def test_nothing_is_called_durable_or_released_before_the_disk_has_it(
    script: list[tuple[str, int]],
) -> None:
    bench = Bench()
    for kind, number in script:
        bench.do(kind, number)
    for _ in range(2):
        bench.do("write", 0)
        bench.do("sync", len(bench.writes))
    assert not bench.held


def test_a_late_sync_does_not_vouch_for_what_replaced_its_entry() -> None:
    durability = Durability(1)
    durability.record(A_PROMISE)
    first = durability.take_write(5, now=0)
    durability.truncated(2)
    durability.record(A_PROMISE)
    second = durability.take_write(5, now=0)
    assert first is not None
    assert second is not None
    durability.persisted(first.ticket, now=0)
    assert durability.durable_index == 2
    durability.persisted(second.ticket, now=0)
    assert durability.durable_index == 5


def test_the_disk_is_as_late_as_the_write_it_is_at() -> None:
    """A write that waited behind another was not under way yet: a slow disk is not a dead one."""
    durability = Durability(0)
    assert durability.oldest_write_us(1_000) == 0
    tickets: list[Any] = []
    for now in (1_000, 2_000):
        durability.record(A_PROMISE)
        tickets.append(durability.take_write(0, now))
    assert durability.writing == 2
    assert durability.oldest_write_us(5_000) == 4_000
    durability.persisted(tickets[0].ticket, now=4_500)
    assert durability.oldest_write_us(5_000) == 500
    durability.excuse(300, 5_000)
    assert durability.oldest_write_us(5_000) == 200, "this process slept, not the disk"
    durability.excuse(300, 5_000)
    assert durability.oldest_write_us(5_000) == 0
    durability.persisted(tickets[1].ticket, now=5_000)
    assert durability.oldest_write_us(6_000) == 0
    assert durability.take_write(0, 5_000) is None, "nothing to write"
    assert A_PROMISE.ballot > NO_BALLOT
