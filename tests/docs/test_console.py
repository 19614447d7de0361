"""The commands in the documentation's consoles exist, and those that show a bug still do."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from documents import PAGES, ROOT

from distinv.cli.main import make_parser
from distinv.cli.options import CLUSTER_VARIABLE
from distinv.testing.fuzzing import __main__ as fuzzing
from distinv.testing.simulator.plan import draw_plan
from distinv.testing.simulator.planted import CANARY, PLANTED
from distinv.testing.simulator.schedules import SCHEDULES
from distinv.testing.simulator.simulation import simulate

_CONSOLE = re.compile(r"^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"[A-Z_]+=")
_FUZZING = ["python", "-m", "distinv.testing.fuzzing"]


@frozen
class Command:
    """A line of a console that somebody is to type."""

    path: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def is_fuzzing(self) -> bool:
        return list(self.words[:3]) == _FUZZING

    def parse(self) -> argparse.Namespace:
        """With a cluster exported, as in the quickstart. Raises SystemExit for wrong usage."""
        if self.is_fuzzing:
            return fuzzing.make_parser().parse_args(self.words[3:])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CLUSTER_VARIABLE, "shop")
            return make_parser().parse_args(self.words[1:])


def commands(path: Path) -> Iterator[Command]:
    """All commands of this project in a document's consoles."""
    text = path.read_text("utf-8")
    for block in _CONSOLE.finditer(text):
        first = text.count("\n", 0, block.start("text")) + 1
        for line, typed in enumerate(block["text"].splitlines(), first):
            words = shlex.split(typed[2:], comments=True) if typed.startswith("$ ") else []
            words = words[1:] if words and _VARIABLE.match(words[0]) else words
            if words and (Path(words[0]).name == "distinv" or words[:3] == _FUZZING):
                yield Command(path, line, tuple(words))


COMMANDS = [each for page in (ROOT / "README.md", *PAGES) for each in commands(page)]


def planted(command: Command) -> tuple[argparse.Namespace, str]:
    """The options of a command that runs one seed with a bug, and the bug; "" for any other."""
    if command.is_fuzzing or command.words[1] != "simulate":
        return argparse.Namespace(), ""
    options = command.parse()
    bug = CANARY if options.canary else options.plant or ""
    return options, bug if options.seed is not None else ""


SHOWN = [command for command in COMMANDS if "--seed" in command.words and planted(command)[1]]


def test_the_commands_are_found() -> None:
    assert {each.path.name for each in COMMANDS} >= {"README.md", "cli.md", "fuzzing.md"}
    assert any(each.is_fuzzing for each in COMMANDS)
    assert any(each.path.name == "security.md" and "status" in each.words for each in COMMANDS)
    assert SHOWN


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_it_can_be_typed(command: Command) -> None:
    command.parse()


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_the_seed_shows_the_bug(command: Command) -> None:
    options, bug = planted(command)
    schedule = SCHEDULES[options.schedule] if options.schedule else None
    plan = schedule.draw(options.seed) if schedule else draw_plan(options.seed)
    plan = plan.changed(options.set)
    if options.faults is not None:
        plan = plan.only(options.faults)
    with PLANTED[bug]():
        outcome = simulate(options.seed, plan=plan, schedule=schedule)
    assert outcome.failure, " ".join(command.words)


@pytest.mark.parametrize(
    "typed",
    [
        "distinv simulate --seed 1 --shrinks",
        ".venv/bin/distinv ships",
        "python -m distinv.testing.fuzzing --datagrams 0",
    ],
)
def test_what_cannot_be_typed_is_noticed(typed: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```console\n$ {typed}   # some words\n```\n", "utf-8")
    (command,) = commands(page)
    with pytest.raises(SystemExit, match="2"):
        command.parse()
