"""`distinv torture` with real processes: one short campaign, and how it says no."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distinv.cli.main import main
from distinv.errors import ConfigError
from distinv.testing.torture import privileges
from distinv.testing.torture.campaign import Outcome, Settings, run_campaign
from distinv.testing.torture.checker import check
from distinv.testing.torture.disk import SmallDisk
from distinv.testing.torture.history import read_history, write_history
from distinv.testing.torture.namespaces import Namespaces
from distinv.testing.torture.privileges import NotPermitted
from distinv.testing.torture.report import campaign_report, describe_campaign


def torture(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit status, and the JSON object printed last."""
    capsys.readouterr()
    status = main(["torture", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_short_campaign_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    status, report = torture(
        *(capsys, "--duration", "6", "--servers", "3", "--seed", "4", "--clients", "2"),
        *("--election", "ring", "--loss", "0.01", "--key", "--history", str(history)),
        *("--leader-kills", "2"),
    )
    assert report["problems"] == []
    assert (status, report["verdict"]) == (0, "ok")
    assert report["leader_kills"] >= 2
    assert report["accepted"] > 0
    assert report["refused"] > 0
    assert report["write_gap_ms_max"] > 0
    assert "directory" not in report
    # The same verdict by itself, from the file alone; and another one when it is spoilt.
    status, judged = torture(capsys, "--check", str(history))
    assert (status, judged["verdict"]) == (0, "ok")
    assert judged["operations"] == report["operations"]
    spoilt = [
        line
        for line in history.read_text("utf-8").splitlines(keepends=True)
        if '"reference":"opening main"' not in line
    ]
    history.write_text("".join(spoilt), "utf-8")
    status, judged = torture(capsys, "--check", str(history))
    assert (status, judged["verdict"]) == (1, "failed")


@pytest.mark.parametrize(
    ("kind", "count"),
    [("leave", "leaves"), ("disk_lost", "disks_lost"), ("rolling", "rolling_restarts")],
)
def test_servers_come_and_go(capsys: pytest.CaptureFixture[str], kind: str, count: str) -> None:
    """However far they have come when the time is over: at the end all are there, and agree."""
    status, report = torture(
        *(capsys, "--duration", "4", "--servers", "3", "--seed", "1", "--clients", "1"),
        *("--faults", f"{kind},leader_kill"),
    )
    assert report["problems"] == []
    assert (status, report["verdict"]) == (0, "ok")
    assert report[count] >= 1


def test_two_servers_are_too_few_to_lose_one(capsys: pytest.CaptureFixture[str]) -> None:
    """One of them votes: its disk is the only one that certainly has everything."""
    status, report = torture(
        *(capsys, "--duration", "1", "--servers", "2", "--clients", "1"),
        *("--faults", "leave,disk_lost"),
    )
    assert (status, report["verdict"]) == (0, "ok")
    assert (report["leaves"], report["disks_lost"]) == (0, 0)
    assert report["left_out"].keys() == {"leave", "disk_lost"}


def test_a_history_that_is_none_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, printed = torture(capsys, "--check", str(tmp_path / "none"))
    assert (status, printed["error"]["code"]) == (2, "config")


def test_unknown_faults_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = torture(capsys, "--faults", "pause,gremlins")
    assert status == 2
    assert "there is no fault 'gremlins'; choose from leader_kill," in printed["error"]["message"]


def test_faults_must_be_some(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", " , "):
        status, printed = torture(capsys, "--faults", text)
        assert status == 2
        assert "names no fault; choose from leader_kill, kill" in printed["error"]["message"]


def test_leaders_cannot_be_killed_without_that_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """It would go on for ever."""
    status, printed = torture(capsys, "--leader-kills", "10", "--faults", "pause")
    assert (status, printed["error"]["code"]) == (2, "config")
    assert "leader kills need the fault leader_kill" in printed["error"]["message"]


@pytest.mark.parametrize("servers", [0, 65])
def test_a_campaign_has_no_more_servers_than_a_cluster(servers: int) -> None:
    with pytest.raises(ConfigError, match=f"there cannot be {servers} servers: 1 to 64"):
        run_campaign(Settings(servers=servers))


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--servers", "65", "'65' is not a whole number from 1 to 64"),
        ("--servers", "0", "'0' is not a whole number from 1 to 64"),
        ("--servers", "many", "'many' is not a whole number from 1 to 64"),
        ("--duration", "abc", "'abc' is not a number above 0"),
        ("--duration", "0", "'0' is not a number above 0"),
        ("--leader-kills", "x", "'x' is not a whole number of at least 0"),
        ("--clients", "0", "'0' is not a whole number of at least 1"),
        ("--loss", "half", "'half' is not a number of at least 0, below 1"),
        ("--seed", "x", "'x' is not a whole number"),
    ],
)
def test_a_wrong_value_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], option: str, value: str, complaint: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["torture", option, value])
    assert f"argument {option}: {complaint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", [("--duration", "5"), ("--faults", ""), ("--namespaces",), ("--leader-kills", "1")]
)
def test_a_check_takes_no_options_of_a_campaign(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: tuple[str, ...]
) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, [])
    status, printed = torture(capsys, "--check", str(path), *given)
    assert status == 2
    assert printed["error"]["message"].startswith(f"{given[0]} does not go with --check")


def test_a_check_says_when_servers_were_not_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from test_torture_checker import honest

    path = tmp_path / "history.jsonl"
    for calls, compared in ((honest(), True), (honest()[:-1], False)):
        write_history(path, calls)
        status, report = torture(capsys, "--check", str(path))
        assert (status, report["verdict"], report["servers_compared"]) == (0, "ok", compared)
        assert main(["torture", "--check", str(path)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert ("servers were not compared" in said) is not compared
        assert said[-1].startswith("verdict ok")


def test_an_interrupted_campaign_claims_nothing() -> None:
    outcome = Outcome(Settings(seed=1), interrupted=signal.SIGINT)
    said = list(describe_campaign(outcome))
    assert said[-1] == "interrupted, not judged"
    assert not [line for line in said if not line or "at most" in line or "verdict" in line]
    report = campaign_report(outcome)
    assert (report["verdict"], report["write_gap_ms_max"]) == ("interrupted", None)


def test_an_unknown_bug_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = torture(capsys, "--plant", "gremlins")
    assert (status, printed["error"]["code"]) == (2, "config")


def test_an_unknown_election_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = torture(capsys, "--election", "coin")
    assert (status, printed["error"]["code"]) == (2, "plugin")


def test_who_may_not_make_namespaces_is_told_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    status, printed = torture(capsys, "--namespaces")
    assert (status, printed["verdict"]) == (0, "skipped")
    assert "this needs root" in printed["reason"]


def test_a_machine_without_the_ip_command_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(privileges.shutil, "which", lambda name: None)
    status, printed = torture(capsys, "--namespaces")
    assert (status, printed["reason"]) == (0, "the command 'ip' is not installed")


@pytest.fixture
def network() -> Any:
    """Three hosts and a switch between them."""
    try:
        made = Namespaces(3)
    except NotPermitted as reason:
        pytest.skip(str(reason))
    with made:
        yield made


def test_servers_on_hosts_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: real broadcast, a key, and links that break."""
    status, report = torture(
        *(capsys, "--namespaces", "--duration", "5", "--servers", "3", "--seed", "1"),
    )
    if report["verdict"] == "skipped":
        pytest.skip(report["reason"])
    assert report["problems"] == []
    assert (status, report["verdict"], report["namespaces"]) == (0, "ok", True)
    assert list(privileges._orphans(privileges._namespaces())) == []
    assert not [
        name for name in privileges._namespaces() if name.startswith(privileges.name_of(""))
    ]


_LISTEN = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("", 4746))
heard.settimeout(20)
print("ready", flush=True)
names = []
while not names or names[-1] != "end":
    names.append(heard.recvfrom(100)[0].decode())
print(" ".join(sorted(names[:-1])), flush=True)
"""
_SAY = """
import socket, sys
said = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
said.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for host, text in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        said.sendto(text.encode(), (host, 4746))
    except OSError:
        pass
"""


_TIMES = count(1)


def heard(network: Namespaces, listener: int, speaker: int) -> str:
    """What one host hears when another says "direct" to it and "all" to everybody.

    A host may still send what it could not send before, as soon as it can: that does not count.
    """
    mark = f"-{next(_TIMES)}"
    listening = subprocess.Popen(
        [*network.places[listener].prefix, sys.executable, "-c", _LISTEN],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout is not None
    assert listening.stdout.readline() == "ready\n"
    address = f"10.213.37.{listener + 1}"
    say = [sys.executable, "-c", _SAY]
    said = [address, "direct" + mark, "10.213.37.255", "all" + mark]
    subprocess.run([*network.places[speaker].prefix, *say, *said], check=True)
    subprocess.run([*network.places[listener].prefix, *say, "127.0.0.1", "end"], check=True)
    with listening:
        words = listening.stdout.readline().split()
    return " ".join(word.removesuffix(mark) for word in words if word.endswith(mark))


def test_what_is_cut_between_hosts(network: Namespaces) -> None:
    assert heard(network, 1, 0) == "all direct"
    network.cut_one_way(0, "mute", 1)
    assert (heard(network, 1, 0), heard(network, 0, 1)) == ("", "all direct")
    network.heal()
    network.cut_one_way(0, "deaf", 1)
    assert (heard(network, 1, 0), heard(network, 0, 1)) == ("all direct", "")
    network.heal()
    network.cut_one_way(0, "pair", 1)
    assert heard(network, 1, 0) == "all"
    assert (heard(network, 2, 0), heard(network, 0, 1)) == ("all direct", "all direct")
    network.heal()
    network.partition([0, 2])
    assert (heard(network, 1, 0), heard(network, 2, 0)) == ("", "all direct")
    network.heal()
    for server in (0, 1):  # the cable, and the interface
        network.isolate(server)
        assert (heard(network, 2, server), heard(network, server, 2)) == ("", "")
        network.heal()
    assert heard(network, 1, 0) == "all direct"


def test_a_small_disk_fills_up_and_is_freed(tmp_path: Path) -> None:
    try:
        disk = SmallDisk.mount(tmp_path / "disk", 1 << 20)
    except NotPermitted as reason:
        pytest.skip(str(reason))
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.path / "file").write_bytes(bytes(8_192))
        disk.free()
        (disk.path / "file").write_bytes(bytes(8_192))
    finally:
        disk.close(keep=True)
    assert (tmp_path / "disk.disk" / "file").stat().st_size == 8_192
    assert not (disk.path / "file").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Servers are killed, paused ones too, mounts undone, the directory removed."""
    command = [sys.executable, "-m", "distinv", "torture", "--servers", "2", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ran = subprocess.Popen(
        [*command, "--faults", "pause,disk_full"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[Path] = []
    while not log or "pause" not in log[0].read_text("utf-8"):
        assert ran.poll() is None, ran.communicate()
        log = list(tmp_path.glob("distinv-torture-*/faults.log"))
    ran.send_signal(number)
    out, _ = ran.communicate(timeout=30)
    assert ran.returncode == 128 + number
    report = json.loads(out.splitlines()[-1])
    assert (report["verdict"], report["write_gap_ms_max"]) == ("interrupted", None)
    assert list(tmp_path.iterdir()) == []
    assert not [each for each in _command_lines() if str(tmp_path) in each]
    assert not [path for _, path in privileges._mounts() if str(tmp_path) in path]


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue  # it has just ended
    return found


def test_the_checker_is_fast_enough_for_a_long_campaign() -> None:
    """Not a measurement: 20,000 calls would take minutes if it took time with their square."""
    from test_torture_checker import call, done, lines

    calls = [call("desk", (0, 1), "put_item", {"sku": "a"}, done(1), 1)]
    rows = []
    for seq in range(2, 20_002):
        answer = done(seq, ("a", "main", seq - 1))
        calls.append(
            call("desk", (2 * seq, 2 * seq + 1), "receive", lines(f"R{seq}", a=1), answer, seq)
        )
        rows.append([seq, "a", "main", 1, seq - 1, "receive", f"R{seq}"])
    last = (100_000, 100_001)
    page = {"outcome": "value", "entries": rows, "next": None}
    calls.append(call("audit", last, "ledger", {"after": None}, page, 20_001))
    assert check(calls).problems == ()


def test_a_broken_server_is_noticed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every second copy of a command that a client sends again takes effect."""
    for seed in range(2, 8):  # on a busy machine few commands are under way when a leader dies
        status, report = torture(
            *(capsys, "--plant", "retry-applied-twice", "--duration", "1", "--servers", "3"),
            *("--faults", "leader_kill", "--leader-kills", "6", "--seed", str(seed)),
        )
        if status:
            break
    assert (status, report["verdict"]) == (1, "failed")
    kept = Path(report["directory"])
    try:
        assert {"twice", "answer", "lost"} & {each["kind"] for each in report["problems"]}
        assert check(read_history(kept / "history.jsonl")).problems
        assert (kept / "server-1" / "journal").is_dir()
    finally:
        shutil.rmtree(kept)
