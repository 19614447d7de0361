"""The Python in the documentation is executed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from documents import PAGES, Block, blocks, documented_blocks, elect

from distinv.plugins.manager import Plugins

MARKS = ("run", "compile", "hook", "election")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_how_it_is_tested(page: Path) -> None:
    for block in blocks(page):
        assert block.mark.partition(" ")[0] in MARKS, str(block)


@pytest.mark.parametrize("block", documented_blocks("run"), ids=str)
def test_it_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block.execute()


@pytest.mark.parametrize("block", documented_blocks("compile"), ids=str)
def test_it_defines_what_it_shows(block: Block) -> None:
    defined = block.execute()
    assert any(
        callable(value) and getattr(value, "__module__", "") == "__document__"
        for value in defined.values()
    )


@pytest.mark.parametrize("block", documented_blocks("election"), ids=str)
def test_the_election_elects(block: Block) -> None:
    """In the simulator, under whatever goes wrong there; and it is not the watchdog's doing."""
    _, label = block.mark.split()
    plugin = ModuleType(label)
    vars(plugin).update(block.execute())
    outcomes = elect(Plugins([plugin], installed=False).election(label))
    assert [outcome.failure for outcome in outcomes] == ["", "", ""]
    assert any("nominates this server" in line for each in outcomes for line in each.lines)
