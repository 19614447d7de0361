"""The Python in the documentation is executed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from documents import PAGES, Block, blocks, documented_blocks

from distinv.election.api import ElectionContext
from distinv.plugins.manager import Plugins
from distinv.testing import simulation

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
def test_the_election_elects(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under loss, crashes and partitions, and without the watchdog's doing alone."""
    _, label = block.mark.split()
    plugin = ModuleType(label)
    vars(plugin).update(block.execute())
    factory = Plugins([plugin], installed=False).election(label)
    made = 0

    def counted(context: ElectionContext) -> object:
        nonlocal made
        made += 1
        return factory(context)

    for name in ("bully", "ring"):
        monkeypatch.setitem(simulation.ELECTIONS, name, counted)
    for seed in (7, 10):
        outcome = simulation.simulate(seed, trace=True, hostile=False)
        assert outcome.failure == ""
        assert any("nominates this server" in line for line in outcome.lines)
    assert made > 0
