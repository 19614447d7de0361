"""The benchmark runs, small, and tells what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_part_has_its_figures() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--json", "--rounds", "1", "--seconds", "0.2"),
            *("--callers", "4", "--kills", "1", "--levels", "1000"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )
    # A server of another test may still write to a port that a client of this run was given.
    said = [line for line in done.stderr.splitlines() if "it belongs to cluster" not in line]
    assert (done.returncode, said) == (0, []), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["machine"]["cores"] == os.cpu_count()
    rows = {(row["what"], row["callers"]): row for row in found["rates"]}
    assert rows.keys() == {("updates", 4), ("linearizable reads", 64)}
    for row in rows.values():  # on a machine with other work nothing may end in so short a time
        assert (row["per_s"]["median"] > 0) == (row["p50_ms"]["median"] > 0)
    assert found["write_gap_ms"]["killed"]["median"] > 0
    assert found["memory_mb"]["full"]["min"] > 0
