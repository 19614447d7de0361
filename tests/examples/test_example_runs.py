"""Every example is run, small, with real server processes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import flash_sale  # noqa: E402
import lost_majority  # noqa: E402
import online_retail  # noqa: E402
import server  # noqa: E402
import till  # noqa: E402

SAMPLE_INVOICES = 40
PATIENCE_S = 100


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return dict(os.environ, PYTHONPATH=path)


def run(script: str, *arguments: object) -> tuple[int, str, str]:
    """Its exit status, the last line it printed, and its complaints."""
    done = subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    lines = done.stdout.splitlines()
    # A server of another test may still write to a port that a client of this run was given.
    said = [line for line in done.stderr.splitlines(True) if "it belongs to cluster" not in line]
    return done.returncode, lines[-1] if lines else "", "".join(said)


def played(script: str, *arguments: object) -> dict[str, Any]:
    """The report of a run in which all was well."""
    status, last, complaints = run(script, *arguments, "--json")
    report: dict[str, Any] = json.loads(last)
    assert (status, report["verdict"], report["problems"], complaints) == (0, "ok", [], "")
    for row in report["servers"]:
        assert row["digest"] == report["digest"]
        assert row["seq"] == report["servers"][0]["seq"]
    return report


def test_flash_sale(backend: str) -> None:
    report = played(
        *("flash_sale.py", "--terminals", 10, "--units", 5, "--loss", 0.2, "--backend", backend)
    )
    assert (report["sold"], report["refused"], report["left"], report["hanging"]) == (5, 5, 0, 0)
    assert len(report["servers"]) == 3


def test_online_retail_survives_its_leader(backend: str, tmp_path: Path) -> None:
    report = played(
        *("online_retail.py", tmp_path / "sample.csv", "--sample", SAMPLE_INVOICES),
        *("--terminals", 4, "--kill-leader", 1, "--election", "ring", "--backend", backend),
        *("--timeout", 0.2, "--loss", 0.05),  # outcomes that are unknown for a while
    )
    counts = [report[name] for name in ("sales", "returns", "adjustments")]
    assert (report["leader_kills"], report["refused"]) == (1, 0)
    assert sum(counts) == report["invoices"] == report["references"] > SAMPLE_INVOICES / 2


def test_online_retail_refuses_what_there_is_not(tmp_path: Path) -> None:
    report = played(
        *("online_retail.py", tmp_path / "sample.csv", "--sample", 3 * SAMPLE_INVOICES),
        *("--terminals", 3, "--opening", 5, "--servers", 1, "--keys"),
    )
    assert report["refused"] > 0
    assert report["references"] + report["refused"] == report["invoices"]


def test_a_cluster_grows_and_shrinks() -> None:
    report = played("grow_and_shrink.py", "--terminals", 2, "--seconds", 0.1)
    found = [(step["servers"], step["voters"]) for step in report["steps"]]
    assert found == [(1, 1), (3, 3), (5, 5), (7, 5), (3, 3)]
    assert set(report["voters"]) == {1, 3, 5}
    assert all(step["orders"] > 0 for step in report["steps"][1:])
    assert len(report["servers"]) == 3


def test_a_majority_is_lost_and_comes_back() -> None:
    options = ("--terminals", 3, "--seconds", 2, "--timeout", 1, "--backend", "trio")
    report = played("lost_majority.py", *options)
    assert [each["leader"] for each in report["outages"]] == ["killed", "spared"]
    for each in report["outages"]:
        unavailable = {"NoLeader", "NoQuorum", "NoServer"}
        assert set(each["writes"]) <= {"answered", "OutcomeUnknown", *unavailable}
        assert sum(count for end, count in each["writes"].items() if end in unavailable) > 0
        assert each["local_reads"] > 0
        assert len(each["as_of"]) == 1
    assert len(report["servers"]) == 3


def test_two_clusters_of_one_name(backend: str) -> None:
    report = played("two_clusters.py", "--backend", backend)
    names = {f"{group}-{number}" for group in ("north", "south") for number in (1, 2, 3)}
    assert set(report["alarms"]) == names
    assert {each["name"] for each in report["servers"]} == names
    roles = sorted(each["role"] for each in report["servers"])
    assert roles == ["follower"] * 4 + ["leader", "learner"]


@pytest.mark.parametrize(
    ("script", "arguments", "complaint"),
    [
        (online_retail, ["nowhere.csv"], "cannot read nowhere.csv"),
        (online_retail, [__file__], "not of the form of the Online Retail data set"),
        (online_retail, [__file__, "--sample", "5"], "exists: give a new name"),
        (flash_sale, ["--election", "coin"], "choose one of: bully"),
        (flash_sale, ["--units", "0"], "give a number of at least 1"),
        (lost_majority, ["--servers", "4"], "an odd number of servers, at least 3"),
        (flash_sale, ["--loss", "1"], "a probability is at least 0 and below 1"),
        (till, ["shop", "MUG", "--sell", "-1"], "units are counted from 0 upwards"),
        (till, ["shop", "MUG", "--key", "nowhere"], "nowhere"),
        (server, ["shop", "unused", "--election", "coin"], "choose one of: bully"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    script: ModuleType,
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    try:
        status = script.main()
    except SystemExit as end:
        status = end.code
    complaints = capsys.readouterr().err
    assert status == 2
    assert complaint in complaints.splitlines()[-1]
    assert "Traceback" not in complaints


def test_servers_and_a_till(backend: str, tmp_path: Path) -> None:
    cluster = f"shop-{secrets.token_hex(4)}"
    running = [
        subprocess.Popen(
            command("server.py", cluster, tmp_path / f"node-{n}", "--backend", backend, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        for n in range(3)
    ]
    try:
        ask = ("till.py", cluster, "MUG", "--backend", backend, "--json")
        status, last, _ = run(*ask, "--receive", 10, "--sell", 6, "--reference", "order-1")
        report = json.loads(last)
        assert (status, report["verdict"], report["sold"], report["available"]) == (0, "ok", 6, 4)
        assert len(report["servers"]) == 3
        status, last, _ = run(*ask, "--sell", 6)
        report = json.loads(last)
        assert (status, report["verdict"], report["refused"]) == (1, "refused", 6)
        for node in running:
            node.send_signal(signal.SIGTERM)
        for node in running:
            out, _ = node.communicate(timeout=PATIENCE_S)
            left = json.loads(out.splitlines()[-1])
            assert node.returncode == 0
            assert (left["verdict"], left["digest"]) == ("ok", report["digest"])
    finally:
        for node in running:
            node.kill()
            node.communicate()
