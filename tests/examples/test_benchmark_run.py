"""The benchmark runs, small, and tells what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(*arguments: str, timeout: float = 100) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "--rounds", "1", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
    )
    # A server of another test may still write to a port that a client of this run was given.
    said = [line for line in done.stderr.splitlines() if "it belongs to cluster" not in line]
    assert (done.returncode, said) == (0, []), done.stderr or done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_part_has_its_figures() -> None:
    found = run(
        *("--seconds", "0.2", "--callers", "4", "--kills", "1", "--levels", "1000"),
    )
    assert found["machine"]["cores"] == os.cpu_count()
    rows = {(row["what"], row["callers"]): row for row in found["rates"]}
    assert rows.keys() == {("updates", 4), ("linearizable reads", 64)}
    for row in rows.values():  # on a machine with other work nothing may end in so short a time
        assert (row["per_s"]["median"] > 0) == (row["p50_ms"]["median"] > 0)
    assert found["write_gap_ms"]["killed"]["median"] > 0
    assert found["memory_mb"]["full"]["min"] > 0


def test_every_order_of_birth_gives_one_cluster() -> None:
    found = run("births", "--runs", "3", "--side-by-side", "3")["births"]
    assert (found["runs"], found["good"], found["problems"]) == (3, 3, [])
    assert found["born_s"].keys() == {"within 50 ms", "500 ms apart", "one late"}


def test_who_was_away_for_long_comes_back_by_snapshot() -> None:
    found = run("come-back", "--commands", "400", "--keep", "5")["come_back"]
    assert found["by_snapshot"]
    assert found["seq_after"] - found["seq_before"] == 400
    assert len(found["digests"]) == len(found["state_digests"]) == 1


def test_a_blank_server_becomes_a_voter_while_others_write() -> None:
    few = ("--levels", "20000", "--keep", "2", "--seconds", "0.5")
    found = run("million", *few, timeout=200)["million"]
    assert found["installed_s"] <= found["voter_s"]
    assert found["writes"]["until it votes"]["per_s"] > 0
    assert found["memory_mb"]["joined"].keys() == {"server-1", "server-2", "server-3"}
    assert len(found["digests"]) == 1


def test_a_rolling_restart_fails_nobody() -> None:
    found = run("rolling", "--callers", "8", "--transfers", "1", timeout=200)["rolling"]
    assert (found["failed_count"], found["rounds"], found["transfers"]) == (0, 1, 1)
    assert found["answered"] > 0
    assert len(found["digests"]) == 1
