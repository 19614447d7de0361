"""`distinv backup`, `restore`, `recover`: what they print, and what they refuse in one line."""

from __future__ import annotations

import re
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import frozen
from command_line import CommandLine, Ran

from distinv.cli.main import main
from distinv.testing.processes import ServerProcesses

DEADLINE_S = 60.0


@frozen
class Stopped:
    """What a server with a little stock has left on its disk."""

    data_dir: Path
    cluster: str
    digest: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    directory = tmp_path_factory.mktemp("rescue")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            ServerProcesses(1, cluster="rescue", directory=directory)
        ) as servers,
    ):
        where = servers.client_arguments
        assert main(["items", "put", "a", *where]) == 0
        assert main(["receive", "a=7", *where]) == 0
        digest = portal.call(servers.watcher.digest).value
        (server,) = servers.servers
    return Stopped(server.data_dir, servers.cluster, digest)


@pytest.fixture
def node(served: Stopped, tmp_path: Path) -> Stopped:
    """A copy of it that a test may spoil."""
    shutil.copytree(served.data_dir, tmp_path / "node")
    return Stopped(tmp_path / "node", served.cluster, served.digest)


def refusal(ran: Ran) -> str:
    """The one line on standard error; with --json the same is in the object printed last."""
    assert ran.status == 2
    assert ran.err.startswith("distinv: ")
    assert ran.err.count("\n") == 1
    said = ran.err.removeprefix("distinv: ").rstrip("\n")
    if ran.out:
        assert ran.json["error"]["message"] == said
    return said


def test_a_backup_is_made_and_restored(node: Stopped, distinv: CommandLine, tmp_path: Path) -> None:
    backup, data = tmp_path / "monday.sqlite3", ("--data", str(node.data_dir))
    made = distinv("backup", str(backup), *data)
    assert made.status == 0
    assert made.err == ""
    assert made.out.startswith(f"backed up the cluster '{node.cluster}' up to seq 2 of 20")
    assert made.out.endswith(f", digest {node.digest}: {backup}\n")
    target = tmp_path / "new"
    restored = distinv("restore", str(backup), "--data", str(target), "--json")
    assert {**restored.json, "time": ""} == {
        "cluster": node.cluster,
        "seq": 2,
        "time": "",
        "digest": node.digest,
        "path": str(target / "store.sqlite3"),
    }
    assert datetime.fromisoformat(restored.json["time"]).tzinfo is not None
    assert distinv("restore", str(backup), "--data", str(tmp_path / "second")).out.startswith(
        f"restored the cluster '{node.cluster}' up to seq 2"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "monday.sqlite3",
        "new",
        "node",
        "second",
    ], "nothing is left beside them"


def test_a_running_server_may_be_backed_up_but_not_recovered(
    one_server: ServerProcesses, distinv: CommandLine, tmp_path: Path
) -> None:
    (server,) = one_server.servers
    data = ("--data", str(server.data_dir))
    made, end = distinv("backup", str(tmp_path / "b"), *data), time.monotonic() + DEADLINE_S
    while made.status != 0 and time.monotonic() < end:
        assert "try again in a moment" in refusal(made), "it has written nothing yet"
        made = distinv("backup", str(tmp_path / "b"), *data)
    assert made.out.startswith("backed up the cluster 'cli-")
    said = refusal(distinv("recover", *data, "--force", one_server.cluster, "--json"))
    assert "is in use by a running server (pid " in said
    assert "Stop it first" in said
    assert server.running


def test_what_cannot_be_backed_up(node: Stopped, distinv: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("something else")
    data = ("--data", str(node.data_dir), "--json")
    there, nowhere = str(tmp_path / "there"), str(tmp_path / "none" / "b")
    assert refusal(distinv("backup", there, *data)).endswith(
        "there exists already: name another file"
    )
    assert "none: make it, or name another file" in refusal(distinv("backup", nowhere, *data))
    assert (tmp_path / "there").read_text() == "something else"
    for wrong in (tmp_path / "no-such", tmp_path):
        ran = distinv("backup", str(tmp_path / "b"), "--data", str(wrong), "--json")
        assert "is no server's data directory: it holds no store.sqlite3" in refusal(ran)


def test_what_cannot_be_restored(node: Stopped, distinv: CommandLine, tmp_path: Path) -> None:
    junk, target = tmp_path / "junk", tmp_path / "new"
    junk.write_text("no store at all")
    ran = distinv("restore", str(junk), "--data", str(target), "--json")
    assert "file is not a database. It is damaged, or no store of distinv" in refusal(ran)
    ran = distinv("restore", str(tmp_path / "none"), "--data", str(target))
    assert "there is no backup" in refusal(ran)
    backup = tmp_path / "b"
    assert distinv("backup", str(backup), "--data", str(node.data_dir)).status == 0
    ran = distinv("restore", str(backup), "--data", str(node.data_dir), "--json")
    assert "exists already and is not empty: name another directory" in refusal(ran)
    assert not target.exists()


def test_recovery_says_what_may_be_lost_before_it_does_anything(
    node: Stopped, distinv: CommandLine, tmp_path: Path
) -> None:
    data = ("--data", str(node.data_dir))
    said = refusal(distinv("recover", *data, "--json"))
    assert "Do this only when a majority of the servers is lost for good" in said
    assert re.search(r"its log ends at 1\.[0-9a-f]{16}\.\d+ \(term, leader, entry\)", said)
    assert "its store has come to seq 2. " in said
    assert "what was acknowledged and is not in that log is lost" in said
    assert said.endswith(f"To go on: distinv recover --data {node.data_dir} --force {node.cluster}")
    said = refusal(distinv("recover", *data, "--force", "shop"))
    assert said.endswith(
        f"belongs to the cluster '{node.cluster}', not to 'shop': give that name with --force"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


def test_a_recovery_by_name(node: Stopped, distinv: CommandLine, tmp_path: Path) -> None:
    force = ("--data", str(node.data_dir), "--force", node.cluster)
    done = distinv("recover", *force)
    assert done.status == 0
    assert done.err == ""
    assert done.out.startswith(f"recovered the cluster '{node.cluster}' up to seq 2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node", "node.before-recovery"]
    said = refusal(distinv("recover", *force, "--json"))
    assert "node.before-recovery exists already" in said
    assert "was recovered before. Move that away first" in said
    shutil.rmtree(tmp_path / "node.before-recovery")
    assert distinv("recover", *force, "--json").json["digest"] == node.digest


@pytest.mark.parametrize("force", [(), ("--force", "shop")])
def test_nothing_is_there_to_recover(
    force: tuple[str, ...], distinv: CommandLine, tmp_path: Path
) -> None:
    ran = distinv("recover", "--data", str(tmp_path / "none"), *force, "--json")
    assert "is no server's data directory: it holds no store.sqlite3" in refusal(ran)


def test_a_link_that_leads_in_a_circle_is_told(
    node: Stopped, distinv: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    where = ("--data", str(tmp_path / "circle"))
    for command in (("recover", *where), ("restore", str(node.data_dir / "store.sqlite3"), *where)):
        assert "is a link that leads in a circle" in refusal(distinv(*command, "--json"))


@pytest.mark.parametrize("command", ["backup", "restore", "recover"])
def test_what_has_to_be_given(command: str, distinv: CommandLine) -> None:
    ran = distinv(command)
    assert ran.status == 2
    assert "required: " in ran.err
    assert "--data" in ran.err


def test_the_directory_one_is_in_can_be_named(
    node: Stopped, distinv: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(node.data_dir)
    assert distinv("backup", "../b", "--data", ".").status == 0
    assert distinv("recover", "--data", ".", "--force", node.cluster).status == 0
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    assert distinv("restore", "../b", "--data", ".").status == 0
    assert (tmp_path / "new" / "store.sqlite3").is_file()
