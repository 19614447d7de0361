"""The documents of the project, and the Python in them.

Every Python block of `docs/` bears a mark, an HTML comment in the line before it:

    <!-- test: run -->        executed, in a directory of its own
    <!-- test: compile -->    executed too, but it only defines: its functions need a network
    <!-- test: hook -->       the exact signature of a hook
    <!-- test: election X --> executed; its election X leads clusters in the simulator
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from attrs import frozen

from distinv.election.api import ElectionFactory
from distinv.testing.simulator.plan import draw_plan
from distinv.testing.simulator.simulation import Outcome, simulate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = tuple(sorted(DOCS.glob("*.md")))

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<mark>.*?) -->\n)?^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@frozen
class Block:
    """A block of Python in a document."""

    path: Path
    line: int
    """Of its first line of Python."""
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"

    def execute(self) -> dict[str, Any]:
        """Run it as a module of its own; what it has defined."""
        names: dict[str, Any] = {"__name__": "__document__"}
        source = "\n" * (self.line - 1) + self.text  # so that tracebacks name the right line
        exec(compile(source, str(self.path), "exec"), names)
        return names


def blocks(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    return [
        Block(
            path,
            text.count("\n", 0, match.start("text")) + 1,
            match["mark"] or "",
            match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]


def elect(factory: ElectionFactory) -> list[Outcome]:
    """How an election does in the first three simulated clusters of three servers or more."""
    plans = ((seed, draw_plan(seed)) for seed in count())
    fitting = islice((each for each in plans if each[1].servers >= 3), 3)
    return [simulate(seed, plan=plan, trace=True, election=factory) for seed, plan in fitting]


def documented_blocks(mark: str) -> list[Block]:
    """The blocks in `docs/` whose mark begins with `mark`."""
    return [block for page in PAGES for block in blocks(page) if block.mark.startswith(mark)]


def table(path: Path, heading: Sequence[str]) -> list[Mapping[str, str]]:
    """The rows of the table in a document whose head is `heading`. Raises ValueError."""
    head = "| " + " | ".join(heading) + " |"
    lines = iter(path.read_text("utf-8").splitlines())
    if head not in lines:  # consumes them up to the table
        raise ValueError(f"{path.name} has no table {head}")
    rows = []
    for line in list(lines)[1:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        rows.append(dict(zip(heading, cells, strict=True)))
    return rows


def links(path: Path) -> list[str]:
    """The targets of a document's links to files of this project, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8"))
    return [
        target.partition("#")[0] for target in found if "://" not in target and target[0] != "#"
    ]
