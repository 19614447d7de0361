"""`StorageSuite`: what a server may promise others depends on what its storage promises it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import ClassVar, Self

import pytest

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry
from distinv.errors import StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    PromiseRecord,
    Recovered,
    Storage,
    StorageContext,
    StorageFactory,
    TruncateRecord,
)
from distinv.testing.conformance.suite import Suite
from distinv.testing.conformance.written import (
    BALLOT,
    BIRTH,
    BLANK,
    IDENTITY,
    PROMISE,
    Contents,
    agreeing,
    base_at,
    brief_of,
    commits,
    compacting,
    compare,
    contents_of,
    copy_live,
    end_of,
    files_in,
    flip_bit,
    killed_after,
    log_of,
    misfits,
    must_refuse,
    records_of,
    written_blocks,
)

LARGE_BYTES = 3 << 20
"""A turn's records may be many batches of a megabyte."""
FLIPS = 80
CUTS = 40

_needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the writer that is killed is a forked process"
)


class StorageSuite(Suite):
    """Properties of a storage.

    A storage is the one plugin that can break promises: what it calls durable and then forgets
    was counted as a vote, or as a copy of somebody's order. So most properties are about ends
    that nobody chose.
    """

    factory: ClassVar[StorageFactory]

    @classmethod
    def of(cls, factory: StorageFactory) -> type[Self]:
        """The suite for the storages that `factory` makes.

        One that keeps nothing on disk has to return the same storage for the same directory:
        that is how it "survives". The properties of files are skipped for it.
        """
        return cls._of(factory=staticmethod(factory))

    # --- what is kept -------------------------------------------------------------------------

    def test_a_blank_directory_holds_nothing(self, tmp_path: Path) -> None:
        """A server without an identity is a new one, and draws an id of its own.

        Its directory need not exist before, nor the one above it.
        """
        directory = tmp_path / "not" / "there"
        with self._open(directory) as (_, recovered):
            assert not recovered.torn, "nothing was ever written, so nothing is torn"
            compare("a blank directory", contents_of(recovered), BLANK)

    def test_what_is_committed_is_there_after_a_restart(self, tmp_path: Path) -> None:
        """The identity, the promise and the log are what a server must not forget."""
        entries = log_of(b"", b"one", b"x" * 700, "größer".encode())
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY])
            storage.commit([PROMISE, *records_of(entries[:2])])
            storage.commit([BIRTH, *records_of(entries[2:])])
        whole = Contents(7, "shop «süd»", BALLOT, tuple(entries), BIRTH, None)
        compare("after a restart", self._look(tmp_path), whole)

    def test_the_last_promise_and_the_last_birth_count(self, tmp_path: Path) -> None:
        """A server that remembers an older promise votes twice. A ballot takes 64 and 63 bits."""
        highest = Ballot(2**63, 2**63 - 1)
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY, PROMISE, PromiseRecord(highest), BIRTH])
            storage.commit([BirthRecord(None, (1,))])
        found = self._look(tmp_path)
        assert found.promised == highest, f"{highest} was promised last, not {found.promised}"
        assert found.birth == BirthRecord(None, (1,)), f"an older birth is there: {found.birth}"

    def test_what_was_committed_goes_on_after_every_restart(self, tmp_path: Path) -> None:
        """Opening writes nothing over what is there, however often."""
        entries: list[Entry] = []
        for number in range(12):
            with self._open(tmp_path) as (storage, recovered):
                assert list(recovered.entries) == entries, f"after {number} restarts"
                more = log_of(bytes([number]) * number * 50, after=end_of(entries))
                storage.commit(records_of(more))
                entries += more
        self._look_for(tmp_path, entries)

    def test_a_truncated_tail_is_replaced(self, tmp_path: Path) -> None:
        """A follower drops what its new leader's log does not have, and takes the leader's."""
        old = log_of(b"a", b"b", b"c", b"d")
        new = log_of(b"B", b"C", after=old[0].position, ballot=Ballot(4, 8))
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY, *records_of(old)])
            storage.commit([TruncateRecord(1), *records_of(new)])
            assert storage.read(1, 3, 10_000) == [old[0], *new], "reading gives another log"
            must_refuse(storage, "an entry that was truncated", lambda: storage.read(4, 4, 100))
        self._look_for(tmp_path, [old[0], *new])

    def test_one_commit_may_truncate_and_write_repeatedly(self, tmp_path: Path) -> None:
        """A commit is a turn's records, of any kind, and takes effect in their order."""
        old = log_of(b"a", b"b", b"c")
        middle = log_of(b"x", b"y", b"z", after=old[1].position)
        new = log_of(b"Y", after=middle[0].position)
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(old))
            storage.commit(
                [
                    TruncateRecord(2),
                    *records_of(log_of(b"brief", after=old[1].position)),
                    TruncateRecord(2),
                    *records_of(middle),
                    TruncateRecord(5),  # nothing lies behind it
                    TruncateRecord(3),  # into what this commit wrote
                    *records_of(new),
                ]
            )
            whole = [*old[:2], middle[0], *new]
            assert storage.read(1, 4, 10_000) == whole, "reading gives another log"
            storage.commit([TruncateRecord(1), TruncateRecord(0), *records_of(log_of(b"other"))])
        self._look_for(tmp_path, log_of(b"other"))

    def test_a_commit_of_nothing_changes_nothing(self, tmp_path: Path) -> None:
        """A turn may have nothing to write, and still wants to know when it is durable."""
        with self._open(tmp_path) as (storage, _):
            storage.commit([])
            storage.commit([IDENTITY])
            storage.commit([])
        named = BLANK._replace(node=7, cluster_name="shop «süd»")
        compare("after an identity and nothing else", self._look(tmp_path), named)

    def test_a_large_commit_is_one(self, tmp_path: Path) -> None:
        """Group commit makes commits as large as the load is."""
        entries = log_of(*(os.urandom(LARGE_BYTES // 3) for _ in range(3)), b"end")
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY, PROMISE, *records_of(entries)])
            assert storage.read(1, 4, 2 * LARGE_BYTES) == entries, "reading gives another log"
        self._look_for(tmp_path, entries)

    def test_what_was_recovered_stays_what_it_was(self, tmp_path: Path) -> None:
        """The core reads the recovered entries while the log goes on; they are a sequence."""
        old = log_of(b"a", b"b", b"c")
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(old))
        with self._open(tmp_path) as (storage, recovered):
            entries = recovered.entries
            storage.commit(records_of(log_of(b"d", after=old[-1].position)))
            assert len(entries) == 3, (
                f"three entries were recovered, and now they are {len(entries)}"
            )
            assert (entries[0], entries[-1]) == (old[0], old[2]), "they are others by now"
            assert list(entries[1:]) == old[1:], "a part of them is another"
            assert list(entries) == old, "they are others by now"

    # --- the base -----------------------------------------------------------------------------

    def test_a_base_that_is_in_the_log_forgets_what_lies_before(self, tmp_path: Path) -> None:
        """Compaction: what is in the store, safe and sound, need not be in the log as well.

        What lies behind it stays, can be truncated down to the base, and goes on.
        """
        entries = log_of(*(bytes([number]) * 700 for number in range(9)))
        with self._open(tmp_path) as (storage, _):
            for entry in entries[:7]:
                storage.commit(records_of([entry]))
            storage.commit([base_at(entries[1].position)])
            storage.commit([base_at(entries[3].position)])
            assert storage.read(5, 7, 10_000) == entries[4:7], "what lies behind the base"
            storage.commit([TruncateRecord(5), *records_of(entries[5:])])
            assert storage.read(5, 9, 10_000) == entries[4:], "the log goes on behind a base"
        self._look_for(tmp_path, entries[4:], base_at(entries[3].position))
        with self._open(tmp_path) as (storage, _):
            storage.commit([base_at(entries[3].position)])  # the same again
            assert storage.read(5, 9, 10_000) == entries[4:], "the same base changes nothing"
            storage.commit([TruncateRecord(4)])
        self._look_for(tmp_path, [], base_at(entries[3].position))

    @pytest.mark.parametrize("what", ["above the end", "of another history", "at the end"])
    def test_a_base_that_is_not_in_the_log_forgets_everything(
        self, tmp_path: Path, what: str
    ) -> None:
        """A snapshot is installed: the log begins anew behind it."""
        old = log_of(*(bytes([number]) * 700 for number in range(6)))
        other = log_of(b"A", b"B", b"C", ballot=Ballot(4, 8))[2].position
        positions = {
            "above the end": other._replace(index=50),
            "of another history": other,
            "at the end": other._replace(index=6),
        }
        base = base_at(positions[what], 2)
        new = log_of(b"x" * 700, b"y" * 700, b"z", after=base.position, ballot=Ballot(4, 8))
        first = base.position.index + 1
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY, PROMISE, BIRTH])
            for entry in old:
                storage.commit(records_of([entry]))
            storage.commit([base])
            must_refuse(storage, "an entry of the old log", lambda: storage.read(4, 6, 100))
        self._look_for(tmp_path, [], base)
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(new[:2]))
            storage.commit([TruncateRecord(first), *records_of(new[1:])])
            assert storage.read(first, first + 2, 10_000) == new, "reading gives another log"
        whole = Contents(7, "shop «süd»", BALLOT, tuple(new), BIRTH, base)
        compare("behind a base", self._look(tmp_path), whole)

    def test_one_commit_may_move_the_base_among_other_records(self, tmp_path: Path) -> None:
        """Records take effect in their order, bases too."""
        old = log_of(b"a", b"b", b"c", b"d")
        new = log_of(b"C", b"D", b"E", b"F", after=old[1].position)
        last = base_at(new[3].position._replace(index=30), 4)
        end = log_of(b"on", after=last.position)
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(old))
            storage.commit(
                [
                    base_at(old[0].position),
                    TruncateRecord(2),
                    *records_of(new),
                    base_at(new[1].position),  # into what this commit wrote
                    TruncateRecord(5),
                ]
            )
            assert storage.read(5, 5, 10_000) == new[2:3], "reading gives another log"
        self._look_for(tmp_path, new[2:3], base_at(new[1].position))
        with self._open(tmp_path) as (storage, _):
            storage.commit([*records_of(new[3:]), last, *records_of(end)])
            assert storage.read(31, 31, 10_000) == end, "reading gives another log"
        self._look_for(tmp_path, end, last)

    @pytest.mark.parametrize(("first", "last"), [(1, 1), (3, 3), (3, 5), (1, 4), (6, 6)])
    def test_reading_what_a_base_forgot_is_refused(
        self, tmp_path: Path, first: int, last: int
    ) -> None:
        """A laggard that needs it is sent a snapshot, not an answer that begins later."""
        entries = log_of(b"a", b"b", b"c", b"d", b"e")
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(entries))
            storage.commit([base_at(entries[2].position)])
            must_refuse(storage, f"read({first}, {last})", lambda: storage.read(first, last, 100))
            assert storage.read(4, 5, 1_000) == entries[3:], "after a refused read"

    # --- reading ------------------------------------------------------------------------------

    def test_reading_gives_the_range_up_to_about_the_bytes_asked_for(self, tmp_path: Path) -> None:
        """A laggard is sent its entries in messages of bounded size, and always gets on."""
        entries = log_of(*(bytes([number]) * 1_000 for number in range(9)))
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(entries))
            assert storage.read(1, 9, 1 << 20) == entries, "all of them were asked for"
            assert storage.read(3, 7, 1 << 20) == entries[2:7], "3..7 were asked for"
            assert storage.read(2, 9, 0) == entries[1:2], "at least one entry, whatever its size"
            some = storage.read(2, 9, 3_500)
            assert some == entries[1 : 1 + len(some)], "from the front, without gaps"
            assert 2 <= len(some) <= 4, f"{len(some)} entries of 1,000 bytes, asked for 3,500"

    @pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 3), (3, 3), (-1, -1)])
    def test_reading_what_is_not_there_is_refused(
        self, tmp_path: Path, first: int, last: int
    ) -> None:
        """An answer with fewer entries would look like the end of the log. It does no harm."""
        entries = log_of(b"a", b"b")
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(entries))
            must_refuse(storage, f"read({first}, {last})", lambda: storage.read(first, last, 100))
            assert storage.read(1, 2, 1_000) == entries, "after a refused read"

    def test_other_threads_read_while_one_commits(self, tmp_path: Path) -> None:
        """`recover` and `commit` have threads of their own; whoever needs entries reads them."""
        entries = log_of(*(b"%d" % number * 100 for number in range(60)))
        problems: list[str] = []
        committed = 1
        done = threading.Event()

        def read() -> None:
            while not problems:
                is_last, last = done.is_set(), committed
                try:
                    if storage.read(1, last, 1 << 20) != entries[:last]:
                        problems.append(f"read other entries than 1..{last}")
                except Exception as error:
                    problems.append(f"reading 1..{last} raised {error!r}")
                if is_last:
                    return

        with self._open_in_a_thread(tmp_path) as (storage, _):
            storage.commit(records_of(entries[:1]))
            readers = [threading.Thread(target=read) for _ in range(2)]
            for reader in readers:
                reader.start()
            try:
                for number, entry in enumerate(entries[1:], 2):
                    storage.commit(records_of([entry]))
                    committed = number
            finally:
                done.set()
                for reader in readers:
                    reader.join()
        assert not problems, problems[0]

    # --- refusing -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "what",
        [
            "a gap in the log",
            "an entry that is there",
            "a wrong hash",
            "truncated above the end",
            "truncated below the start",
            "truncated below the base",
            "an entry below the base",
            "a base below the base",
            "a base beside the base",
            "another base in its place",
            "a base before the first entry",
            "another identity",
        ],
    )
    def test_a_commit_that_does_not_fit_ends_it_and_leaves_nothing(
        self, tmp_path: Path, what: str
    ) -> None:
        """A bug above must not reach the disk, nor must what comes after it.

        The commit fails as a whole, and a failed one is never tried again: every later call is
        refused until the directory is opened anew, and then it is as it was before.
        """
        first = log_of(b"a")
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY, *records_of(first)])
            must_refuse(storage, what, lambda: storage.commit([PROMISE, *misfits()[what]]))
            must_refuse(storage, "a commit after a failed one", lambda: storage.commit([PROMISE]))
            must_refuse(storage, "reading after a failed commit", lambda: storage.read(1, 1, 100))
        found = self._look(tmp_path)
        assert found.promised == NO_BALLOT, "a part of the failed commit was kept"
        assert list(found.entries) == first, "the failed commit changed the log"

    def test_it_is_used_between_recover_and_close(self, tmp_path: Path) -> None:
        """Whoever writes before having read writes over something. Closing twice does no harm."""
        storage = self.factory(StorageContext(tmp_path / "node"))
        try:
            must_refuse(storage, "a commit before recover", lambda: storage.commit([IDENTITY]))
            storage.recover()
            must_refuse(storage, "a second recover", storage.recover)
            storage.commit([IDENTITY, *records_of(log_of(b"a"))])
        finally:
            storage.close()
        storage.close()
        must_refuse(storage, "a commit after close", lambda: storage.commit([PROMISE]))
        must_refuse(storage, "reading after close", lambda: storage.read(1, 1, 100))

    def test_a_directory_is_locked_while_it_is_open(self, tmp_path: Path) -> None:
        """Two servers on one directory are two servers with one vote."""
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY])
            second = self.factory(StorageContext(tmp_path / "node"))
            try:
                must_refuse(second, "recover while another has the directory", second.recover)
            finally:
                if second is not storage:
                    second.close()
            storage.commit([PROMISE])
        kept = self._look(tmp_path).promised
        assert kept == BALLOT, f"what the first one promised is gone: {kept}"

    # --- ends that nobody chose ---------------------------------------------------------------

    def test_a_commit_that_returned_is_on_disk(self, tmp_path: Path) -> None:
        """A copy of the directory at that moment holds it: nothing waits in this process."""
        node, story = tmp_path / "node", commits()
        with self._open(tmp_path) as (storage, _):
            for number, (records, _) in enumerate(story):
                storage.commit(records)
                if node.exists():
                    copy_live(node, tmp_path / f"copy-{number}" / "node")
        self._skip_without_files(node)
        for number, (_, expected) in enumerate(story):
            found = self._look(tmp_path / f"copy-{number}")
            assert found == expected, (
                f"after commit {number} the directory holds {brief_of(found)} instead of "
                f"{brief_of(expected)}"
            )

    @_needs_fork
    @pytest.mark.parametrize("acknowledged", [1, 3, 20, 60])
    def test_a_killed_process_loses_nothing_that_was_acknowledged(
        self, tmp_path: Path, acknowledged: int
    ) -> None:
        """A process that commits as fast as it can is killed: what it said was durable is there.

        The one under way may be there or not, but not in part: each commit is a promise and two
        entries.
        """
        with self._open(tmp_path) as (storage, _):
            storage.commit([IDENTITY])
        self._skip_without_files(tmp_path / "node")
        last = killed_after(acknowledged, lambda say: self._commit_for_ever(tmp_path, say))
        found = self._look(tmp_path)
        count = len(found.entries)
        assert found.node == IDENTITY.node, "its identity is gone"
        assert count in (2 * last, 2 * last + 2), (
            f"{last} commits of two entries were acknowledged, {count} entries are there"
        )
        assert found.promised.term == count // 2, "half of a commit is there"
        with self._open(tmp_path) as (storage, recovered):
            storage.commit(records_of(log_of(b"on", after=end_of(recovered.entries))))
        again = len(self._look(tmp_path).entries)
        assert again == count + 1, f"{count} entries and one more are {again}"

    @_needs_fork
    @pytest.mark.parametrize("acknowledged", [12, 60])
    def test_a_killed_process_that_forgets_loses_nothing_else(
        self, tmp_path: Path, acknowledged: int
    ) -> None:
        """What a base makes superfluous goes when the base is durable, and it may go slowly."""
        story = compacting(400)
        with self._open(tmp_path) as (storage, _):
            storage.commit(story[0][0])
        self._skip_without_files(tmp_path / "node")

        def commit_them(say: Callable[[int], None]) -> None:
            with self._open(tmp_path) as (storage, _):
                for number, (records, _) in enumerate(story[1:], 1):
                    storage.commit(records)
                    say(number)

        last = killed_after(acknowledged, commit_them)
        found = self._look(tmp_path)
        possible = [expected for _, expected in story[last : last + 2]]
        assert found in possible, (
            f"{last} commits were acknowledged, which leaves {brief_of(possible[0])}; there are "
            f"{brief_of(found)}"
        )
        with self._open(tmp_path) as (storage, _):
            storage.commit(records_of(log_of(b"on", after=end_of(found.entries))))
        again = len(self._look(tmp_path).entries)
        assert again == len(found.entries) + 1, "it does not go on behind what is there"

    def test_files_that_end_early_give_whole_commits_or_an_error(self, tmp_path: Path) -> None:
        """A crash may leave a file shorter than it was to be; half a commit is applied never."""
        states = self._written(tmp_path)
        random = Random(5)
        for _ in range(CUTS):
            copy = self._copy(tmp_path)
            path = random.choice(files_in(copy))
            size = path.stat().st_size
            ends = [random.randrange(size), size - 1, size - 1 - random.randrange(min(size, 600))]
            end = random.choice([max(0, end) for end in ends])
            os.truncate(path, end)
            found = self._look_at_damage(copy)
            assert found is None or found in states, (
                f"{path.name} cut from {size} to {end} bytes: what was recovered was never there: "
                f"{brief_of(found)}"
            )

    def test_a_flipped_bit_is_never_served(self, tmp_path: Path) -> None:
        """Disks damage data in silence. A server with a damaged log must not vote.

        Either everything is there as it was (the bit mattered to nobody), or recovering or
        reading raises. Losing the last commits is no way out: they had been acknowledged.
        """
        *_, whole = self._written(tmp_path)
        random = Random(6)
        places = [place for path in files_in(tmp_path / "node") for place in written_blocks(path)]
        for _ in range(FLIPS):
            copy = self._copy(tmp_path)
            name, start, length = random.choice(places)
            at, bit = start + random.randrange(length), random.randrange(8)
            flip_bit(copy / name, at, bit)
            found = self._look_at_damage(copy)
            assert found is None or found == whole, (
                f"bit {bit} of byte {at} of {name} was flipped, and nobody noticed: "
                f"{brief_of(found)} instead of {brief_of(whole)}"
            )

    # --- scenes -------------------------------------------------------------------------------

    @contextmanager
    def _open(self, directory: Path) -> Iterator[tuple[Storage, Recovered]]:
        storage = self.factory(StorageContext(directory / "node"))
        try:
            yield storage, storage.recover()
        finally:
            storage.close()

    @contextmanager
    def _open_in_a_thread(self, directory: Path) -> Iterator[tuple[Storage, Recovered]]:
        """`recover` runs in a worker thread, as in a server; the rest does not."""
        storage = self.factory(StorageContext(directory / "node"))
        found: list[Recovered] = []
        thread = threading.Thread(target=lambda: found.append(storage.recover()))
        try:
            thread.start()
            thread.join()
            assert found, "recover failed in a thread"
            yield storage, found[0]
        finally:
            storage.close()

    def _look(self, directory: Path) -> Contents:
        with self._open(directory) as (_, recovered):
            return contents_of(recovered)

    def _look_for(
        self, directory: Path, entries: Sequence[Entry], base: BaseRecord | None = None
    ) -> None:
        _, _, _, found, _, found_base = self._look(directory)
        assert found_base == base, f"after a restart the base is {found_base!r}, not {base!r}"
        assert found == tuple(entries), (
            f"after a restart there are {len(found)} entries, not the {len(entries)} written: the "
            f"first {agreeing(found, entries)} agree"
        )

    def _look_at_damage(self, node: Path) -> Contents | None:
        """What is recovered and read, None when that is refused; the copy is removed."""
        storage = self.factory(StorageContext(node))
        try:
            found = contents_of(storage.recover())
            before = found.base.position.index if found.base else 0
            end = before + len(found.entries)
            if found.entries and tuple(storage.read(before + 1, end, 1 << 30)) != found.entries:
                return found._replace(entries=())  # two stories: neither was ever there
            return found
        except StorageError:
            return None
        finally:
            storage.close()
            shutil.rmtree(node.parent)

    def _written(self, directory: Path) -> list[Contents]:
        """Write the story; what is there after each commit, nothing first."""
        states = [BLANK]
        with self._open(directory) as (storage, _):
            for records, expected in commits():
                storage.commit(records)
                states.append(expected)
        self._skip_without_files(directory / "node")
        return states

    def _copy(self, directory: Path) -> Path:
        node = directory / "copy" / "node"
        shutil.copytree(directory / "node", node)
        return node

    def _commit_for_ever(self, directory: Path, say: Callable[[int], None]) -> None:
        with self._open(directory) as (storage, _):
            end, number = ORIGIN, 0
            while True:
                number += 1
                entries = log_of(b"x" * (number * 37 % 1_500), b"y", after=end)
                ballot = PromiseRecord(Ballot(number, 7))
                storage.commit([records_of(entries)[0], ballot, records_of(entries)[1]])
                say(number)
                end = entries[-1].position

    def _skip_without_files(self, node: Path) -> None:
        if not files_in(node):
            pytest.skip("it keeps nothing on disk")
