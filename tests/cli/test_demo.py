"""`distinv demo`: the whole path, with real processes and a real SIGKILL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from command_line import CommandLine


def test_the_demo_ends_well(distinv: CommandLine) -> None:
    ran = distinv("demo", "--orders", "300", "--election", "ring", "--loss", "0.02", "--json")
    assert ran.err == ""
    report = ran.json
    assert report["problems"] == []
    assert (ran.status, report["verdict"], report["leader_kills"]) == (0, "ok", 1)
    assert report["accepted"] + report["refused"] == report["orders"] == 300
    assert report["accepted"] > 0
    assert report["refused"] > 0
    assert report["write_gap_ms_max"] > 0
    servers = report["servers"]
    assert [server["name"] for server in servers] == ["server-1", "server-2", "server-3"]
    assert {server["digest"] for server in servers} == {report["digest"]}
    assert len({server["seq"] for server in servers}) == 1
    assert re.fullmatch(r"[0-9a-f]{16}", report["digest"])


def test_the_demo_tells_its_story(distinv: CommandLine) -> None:
    ran = distinv("demo", "--orders", "120", "--backend", "trio", "--servers", "1")
    assert ran.status == 0
    assert "server-1, the leader, was killed (SIGKILL)" in ran.out
    assert "verdict ok: nothing lost, nothing sold twice, all servers agree" in ran.out
    assert re.search(r"^server-1 +leader +\d+ +[0-9a-f]{16}$", ran.out, re.MULTILINE)
