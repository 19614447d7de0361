"""What a dissolved cluster leaves on disk: moved away whole, whatever happens on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from cluster_kit import DEADLINE_S, MemoryCluster, running

from distinv.errors import ConfigError, StorageError
from distinv.runtime import set_aside as module
from distinv.runtime.recovery import inspect, recover
from distinv.runtime.set_aside import finish, is_unfinished, remembered, set_aside
from distinv.server.dissolving import Dissolved
from distinv.storage.lock import lock_directory

GONE = Dissolved(0xABC, 0xDEF)
FOLDER = f"dissolved-{0xABC:016x}"
HELD = {"journal-1": "one", "journal-2": "two", "store.sqlite3": "stock", "dissolved-notes": "mine"}


class PowerCut(BaseException):
    pass


def directory(path: Path) -> Path:
    path.mkdir()
    (path / "lock").touch()
    for name, content in HELD.items():
        (path / name).write_text(content)
    return path


def content(folder: Path) -> dict[str, str]:
    """Of the files in it, but for what only setting aside needs."""
    own = ("lock", "successor")
    return {
        each.name: each.read_text()
        for each in folder.iterdir()
        if each.is_file() and each.name not in own
    }


def is_done(data_dir: Path) -> bool:
    names = sorted(os.listdir(data_dir))
    return names == [FOLDER, "lock"] and content(data_dir / FOLDER) == HELD


def cut_power_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is to last needs one of these calls."""
    left = [steps]

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            return call(*arguments, **named)

        return counted

    for owner, name in ((Path, "mkdir"), (Path, "rename"), (Path, "write_text")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    for name in ("sync_file", "sync_directory"):
        monkeypatch.setattr(module, name, failing(getattr(module, name)))


def test_everything_is_set_aside(tmp_path: Path) -> None:
    data_dir = directory(tmp_path / "node")
    set_aside(data_dir, GONE)
    assert is_done(data_dir)
    assert remembered(data_dir) == (GONE,)
    assert not is_unfinished(data_dir)
    finish(data_dir)
    assert is_done(data_dir)


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """Either nothing has happened, or the next one to open the directory ends it."""
    crashes = finished = 0
    for steps in range(100):
        data_dir = directory(tmp_path / f"node-{steps}")
        with monkeypatch.context() as patch:
            cut_power_after(steps, patch)
            try:
                set_aside(data_dir, GONE)
                break
            except PowerCut:
                crashes += 1
        if not is_unfinished(data_dir):
            assert content(data_dir) == HELD or is_done(data_dir)
            continue
        if again:
            with monkeypatch.context() as patch:
                cut_power_after(2, patch)
                with pytest.raises(PowerCut):
                    finish(data_dir)
        finish(data_dir)
        finished += 1
        assert is_done(data_dir)
        (gone,) = remembered(data_dir)
        assert gone in (GONE, Dissolved(GONE.cluster_id, 0)), "the hint may be lost, the fact not"
    assert crashes > len(HELD)
    assert finished >= len(HELD)


def test_a_directory_may_be_set_aside_again(tmp_path: Path) -> None:
    """One that was put back from a copy."""
    data_dir = directory(tmp_path / "node")
    set_aside(data_dir, GONE)
    for name, text in HELD.items():
        (data_dir / name).write_text(text + " again")
    set_aside(data_dir, Dissolved(0xABC, 5))
    assert sorted(os.listdir(data_dir)) == [FOLDER, f"{FOLDER}-2", "lock"]
    assert content(data_dir / FOLDER) == HELD
    assert content(data_dir / f"{FOLDER}-2")["journal-1"] == "one again"
    assert remembered(data_dir) == (GONE, Dissolved(0xABC, 5))


def test_they_are_remembered_in_their_order(tmp_path: Path) -> None:
    data_dir = tmp_path / "node"
    data_dir.mkdir()
    for cluster_id in (9, 3, 7):
        set_aside(data_dir, Dissolved(cluster_id, 1))
        os.utime(data_dir / f"dissolved-{cluster_id:016x}", (cluster_id, 100 - cluster_id))
    assert [each.cluster_id for each in remembered(data_dir)] == [9, 7, 3]
    assert remembered(tmp_path / "nowhere") == ()


def test_a_successor_that_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    data_dir = directory(tmp_path / "node")
    set_aside(data_dir, GONE)
    (data_dir / FOLDER / "successor").write_text("who knows")
    assert remembered(data_dir) == (Dissolved(0xABC, 0),)


def test_where_nothing_is_nothing_is_set_aside(tmp_path: Path) -> None:
    set_aside(tmp_path / "nowhere", GONE)
    assert not is_unfinished(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    data_dir = directory(tmp_path / "node")
    lock = lock_directory(data_dir)
    try:
        with pytest.raises(StorageError, match="in use by a running server"):
            set_aside(data_dir, GONE)
        assert content(data_dir) == HELD
        (data_dir / f"dissolving-{5:016x}").mkdir()
        with pytest.raises(StorageError, match="in use by a running server"):
            finish(data_dir)
    finally:
        os.close(lock)


def test_a_disk_that_refuses_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    data_dir = directory(tmp_path / "node")
    monkeypatch.setattr(module, "sync_directory", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        set_aside(data_dir, GONE)
    with pytest.raises(StorageError, match="the disk is full"):
        finish(data_dir)


# --- a server that finds such a directory -----------------------------------------------------


@pytest.mark.anyio
async def test_a_start_ends_what_a_crash_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (server,):
        old = server.status().cluster_id
    data_dir = tmp_path / "node-0"
    with monkeypatch.context() as patch:
        cut_power_after(6, patch)
        with pytest.raises(PowerCut):
            set_aside(data_dir, Dissolved(old, 0))
    assert is_unfinished(data_dir)
    with pytest.raises(ConfigError, match="start the server once"):
        inspect(data_dir)
    with pytest.raises(ConfigError, match="start the server once"):
        recover(data_dir)
    with caplog.at_level("INFO", "distinv"):
        async with running(shop.server(0)) as (server,), shop.client() as inventory:
            assert server.status().cluster_id != old
            assert server._engine.remembered == (Dissolved(old, 0),)
            with anyio.fail_after(DEADLINE_S):
                await inventory.put_item("MUG")
    assert any("of a dissolved cluster is set aside now" in line for line in caplog.messages)
    kept = data_dir / f"dissolved-{old:016x}"
    assert (kept / "store.sqlite3").exists()
    assert inspect(data_dir).seq == 1


@pytest.mark.anyio
async def test_recovery_leaves_what_was_set_aside_where_it_is(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)), shop.client() as inventory:
        await inventory.put_item("MUG")
    data_dir = tmp_path / "node-0"
    folder = data_dir / FOLDER
    folder.mkdir()
    (folder / "journal-1").write_text("of another cluster")
    assert inspect(data_dir).seq == 1
    recover(data_dir)
    assert inspect(data_dir).seq == 1
    before = data_dir.with_name("node-0.before-recovery")
    assert (before / FOLDER / "journal-1").read_text() == "of another cluster"
