"""`distinv serve` as a process: what it says, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distinv.testing.ports import free_port

DEADLINE_S = 30
LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (INFO   |WARNING|ERROR  |DEBUG  ) node: .+"
)


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        *(sys.executable, "-m", "distinv", "serve", "--cluster", "shop", "--expect", "1"),
        *("--data", str(directory / "node"), "--bind", "127.0.0.1:0"),
        *("--beacon-port", str(free_port()), *options),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def events_until(process: subprocess.Popen[str], event: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] != event:
        events.append(json.loads(process.stdout.readline()))
    return events


@pytest.mark.parametrize(
    ("number", "backend"), [(signal.SIGTERM, "asyncio"), (signal.SIGINT, "trio")]
)
def test_a_signal_stops_it_in_order(number: signal.Signals, backend: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--json", "--backend", backend) as process:
        (listening,) = events_until(process, "listening")
        assert listening["address"][0] == "127.0.0.1"
        assert (listening["name"], listening["cluster"]) == ("node", "shop")
        assert listening["pid"] == process.pid
        process.send_signal(number)
        out, log = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert json.loads(out)["event"] == "stopped"
    lines = log.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), log
    assert "takes part in the cluster 'shop' on 127.0.0.1:" in lines[0]
    assert lines[-1].endswith("node: stops")


def test_its_log_tells_how_it_came_to_lead(tmp_path: Path) -> None:
    with serving(tmp_path, "--json") as process:
        events = events_until(process, "ready")
        process.terminate()
        _, log = process.communicate(timeout=DEADLINE_S)
    assert [each["event"] for each in events] == ["listening", "ready"]
    told = ("proposing the cluster", "is born", "starting an election", "serving clients in term 1")
    places = [log.index(text) for text in told]
    assert places == sorted(places)


def test_it_stops_when_its_starter_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path, "--until-stdin-closes", "--log-level", "error") as process:
        out, log = process.communicate(timeout=DEADLINE_S)  # closes its standard input
    assert (process.returncode, out, log) == (0, "", "")


def test_what_keeps_it_from_starting_is_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, "--json") as first:
        events_until(first, "listening")
        with serving(tmp_path, "--json") as second:
            out, log = second.communicate(timeout=DEADLINE_S)
        assert second.returncode == 2
        assert json.loads(out)["error"]["code"] == "storage"
        assert log.count("\n") == 1
        assert log.startswith("distinv: ")
        assert f"is in use by a running server (pid {first.pid})" in log


def test_a_failure_while_it_runs_is_status_three(tmp_path: Path) -> None:
    program = (
        "import sys; from distinv.cli.main import main\n"
        "from distinv.storage.journal import Journal; from distinv.errors import StorageError\n"
        "def commit(self, records): raise StorageError('the disk is full')\n"
        "Journal.commit = commit\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    ran = subprocess.run(
        [
            *(sys.executable, "-c", program, "serve", "--cluster", "shop", "--json"),
            *("--data", str(tmp_path / "node"), "--beacon-port", str(free_port())),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 3
    assert json.loads(ran.stdout.splitlines()[-1])["error"]["code"] == "server_stopped"
    assert ran.stderr.splitlines()[-1] == "distinv: the disk is full"
    assert "Traceback" not in ran.stderr
