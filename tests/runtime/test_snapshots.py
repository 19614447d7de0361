"""A snapshot on its way: kept piece by piece on disk, gone on with by whoever opens it next."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest

from distinv.config import Limits
from distinv.entry import Ballot, ClusterId, NodeId, Position, SnapshotHead, Voter, VoterSet
from distinv.errors import StorageError
from distinv.inventory.snapshot import DIGEST_BYTES
from distinv.runtime.snapshots import FileDepot

PIECE = 100_000
DATA = bytes(range(256)) * 1_000
HEAD = SnapshotHead(
    Position(9, Ballot(3, NodeId(2)), bytes(16)),
    1_000,
    1,
    Ballot(1, NodeId(1)),
    VoterSet("shop", ClusterId(77), (Voter(NodeId(1), "north"),)),
    len(DATA),
    blake2b(DATA, digest_size=DIGEST_BYTES).digest(),
)


def test_pieces_are_gone_on_with_after_a_restart(tmp_path: Path) -> None:
    depot = FileDepot(tmp_path, Limits())
    depot.begin(HEAD)
    depot.write(0, DATA[:PIECE])
    later = FileDepot(tmp_path, Limits())
    assert later.resume() == (HEAD, PIECE)
    for offset in range(PIECE, len(DATA), PIECE):
        later.write(offset, DATA[offset : offset + PIECE])
    assert (tmp_path / "incoming.sqlite3").read_bytes() == DATA


def test_another_snapshot_begins_anew(tmp_path: Path) -> None:
    depot = FileDepot(tmp_path, Limits())
    depot.begin(HEAD)
    depot.write(0, DATA[:PIECE])
    depot.begin(HEAD)
    assert depot.resume() == (HEAD, 0)


def test_what_somebody_else_calls_a_snapshot_stays(tmp_path: Path) -> None:
    own = {"snapshot-1.sqlite3", "snapshot-12.sqlite3.part", "snapshot-2.sqlite3-journal"}
    others = {"snapshot-monday.sqlite3", "snapshot-2026-11-23.sqlite3", "snapshot-1.sqlite3.gz"}
    for name in own | others:
        (tmp_path / name).touch()
    FileDepot(tmp_path, Limits())
    assert {path.name for path in tmp_path.iterdir()} == others


def test_a_full_disk_is_told_at_the_piece_that_does_not_fit(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full, a disk that is always full")
    depot = FileDepot(tmp_path, Limits())
    depot.begin(HEAD)
    (tmp_path / "incoming.sqlite3").unlink()
    (tmp_path / "incoming.sqlite3").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        depot.write(0, DATA[:PIECE])


def test_pieces_whose_file_is_gone_are_not_written_elsewhere(tmp_path: Path) -> None:
    depot = FileDepot(tmp_path, Limits())
    depot.begin(HEAD)
    (tmp_path / "incoming.sqlite3").unlink()
    with pytest.raises(StorageError, match="the system refused"):
        depot.write(PIECE, DATA[PIECE:])
    assert depot.resume() is None
