"""README.md keeps its promises: two commands of one line, and Python that does what it says."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from documents import PAGES, ROOT, blocks, elect, links
from readme import commands, quick_start

from distinv import Cluster, config
from distinv.election.api import ElectionContext, Nominate
from distinv.entry import NodeId

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")


def a_config_of_its_own() -> config.Config:
    """So that the examples, which set nothing, find nobody else's servers on this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    found = config.test()
    return evolve(found, network=evolve(found.network, beacon_port=port, port=0))


# --- the two commands -------------------------------------------------------------------------


def test_quick_start_holds_two_commands_of_one_line() -> None:
    demo, test = commands(TEXT).values()
    assert demo.endswith("distinv demo")
    assert test.endswith("-m pytest")


def test_the_commands_need_no_activated_environment_and_nothing_outside() -> None:
    for command in commands(TEXT).values():
        first, *others = command.split(" && ")
        assert first == "python3 -m venv .venv"
        assert all(part.startswith(".venv/bin/") for part in others)
        assert "://" not in command
        assert "--index" not in command


def test_no_other_block_of_quick_start_looks_like_one_of_them() -> None:
    assert quick_start(TEXT).count("```sh\n") == 2


@pytest.mark.parametrize(
    "text",
    [
        "# distinv\n",
        "## Quick start\n```sh\none\n```\n",
        "## Quick start\n```sh\none\n```\n```sh\ntwo\nthree\n```\n",
        "## Quick start\n```sh\none\n```\n## Next\n```sh\ntwo\n```\n",
    ],
)
def test_a_readme_without_them_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Quick start"):
        commands(text)


def test_the_checks_read_the_commands_from_the_readme() -> None:
    """`.ci/run` must run what README says, so it may not say it itself."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "pytest" not in script.replace("coverage run -m pytest", "")
    asked = subprocess.run(
        [sys.executable, str(ROOT / "tests/docs/readme.py"), str(README), "test"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert asked.stdout == commands(TEXT)["test"] + "\n"


def test_the_checks_can_be_run() -> None:
    mode = os.stat(ROOT / ".ci" / "run").st_mode
    assert mode & stat.S_IXUSR


# --- the Python in it -------------------------------------------------------------------------


def test_the_first_example_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = a_config_of_its_own()
    monkeypatch.setattr("distinv.runtime.cluster.lan", lambda: own)
    monkeypatch.setattr("distinv.client.client.lan", lambda: own)
    monkeypatch.chdir(tmp_path)
    blocks(README)[0].execute()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "3 94"
    assert second.startswith("4 (Shortage(")
    assert "requested=95, available=94" in second


def test_the_election_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = blocks(README)[1].execute()
    assert isinstance(names["cluster"], Cluster)
    election = names["HighestId"](ElectionContext(NodeId(1), None, config.Timing()))
    election.on_members((NodeId(1), NodeId(2), NodeId(3)), 0)
    assert election.on_suspect(NodeId(3), 0) == [Nominate(NodeId(2))]
    assert election.on_suspect(None, 0) == [Nominate(NodeId(3))]


def test_the_election_elects() -> None:
    outcomes = elect(blocks(README)[1].execute()["HighestId"])
    assert [outcome.failure for outcome in outcomes] == ["", "", ""]
    assert any("nominates this server" in line for each in outcomes for line in each.lines)


# --- what it points at ------------------------------------------------------------------------


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), target


def test_every_page_is_named() -> None:
    """The library reference and the changelog are reached from the others."""
    named = [target for target in links(README) if target.startswith("docs/")]
    missing = {page.name for page in PAGES} - {Path(target).name for target in named}
    assert missing == {"index.md", "api.md", "changelog.md"}
