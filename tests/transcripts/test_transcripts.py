"""Every scene says what it said before, and what it promises holds.

    pytest tests/transcripts --regenerate        write what the scenes say now; review the diff

A scene whose checks fail is not written.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from core_stage import CoreStage
from player import CHECKS, play
from script import Command, ScriptError, perform

from distinv.entry import Ballot, EntryKind, NodeId, make_entry
from distinv.testing.simulator.planted import PLANTED

B = NodeId(2)
HERE = Path(__file__).parent
SCENES = sorted(HERE.glob("*.txt"))

REQUIRED = (
    "bully-crash",
    "ring-crash",
    "duelling-nominators",
    "forfeit",
    "isolated-leader-late-write",
    "read-index-across-leaders",
    "lost-last-message",
    "retry-across-leaders",
    "one-way-partition",
    "transfer",
    "one-becomes-three",
    "swap-across-leaders",
)


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_a_scene_says_what_it_said_before(path: Path, request: pytest.FixtureRequest) -> None:
    before, now = path.read_text("utf-8"), play(path)
    if request.config.getoption("--regenerate"):
        if now != before:
            path.write_text(now, "utf-8")
        return
    diff = difflib.unified_diff(
        before.splitlines(), now.splitlines(), path.name, f"{path.name} now", lineterm=""
    )
    story = "\n".join(diff)
    assert not story, (
        f"{story}\n\nIf this is as it should be: pytest tests/transcripts --regenerate"
    )


def test_the_scenes_that_must_be_there_are() -> None:
    assert set(REQUIRED) <= {path.stem for path in SCENES}


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_a_scene_is_listed_in_the_documentation(path: Path) -> None:
    page = HERE.parents[1] / "docs" / "transcripts.md"
    assert f"`{path.stem}`" in page.read_text("utf-8")


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_a_scene_begins_with_its_story(path: Path) -> None:
    """What it is about, the trap and the answer; and twice the same play is the same text."""
    head = " ".join(path.read_text("utf-8").partition("\n> ")[0].split())
    assert "Trap: " in head
    assert "Answer: " in head
    assert play(path) == play(path)


# --- a core that is broken --------------------------------------------------------------------

NOTICED = {
    "minority-decides": "isolated-leader-late-write",
    "commit-before-sync": "durable-first",
    "truncate-matching": "matching-entries",
    "read-unconfirmed": "read-index-across-leaders",
    "promise-before-sync": "durable-first",
    "retry-applied-twice": "retry-across-leaders",
    "ballot-forgotten": "durable-first",
    "old-set-forgotten": "swap-across-leaders",
}
"""Which scene fails under a bug planted in the core or in the store."""


@pytest.mark.parametrize("bug", NOTICED)
def test_no_scene_can_be_regenerated_with_a_planted_bug(bug: str) -> None:
    with PLANTED[bug](), pytest.raises(ScriptError, match=r"\.txt:\d+: .*FAILED"):
        play(HERE / f"{NOTICED[bug]}.txt")


# --- bad scenes -------------------------------------------------------------------------------

ENDINGS = {kind: "".join(f"> {check}\n" for check in checks) for kind, checks in CHECKS.items()}


def told(tmp_path: Path, text: str) -> str:
    path = tmp_path / "bad.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ScriptError) as problem:
        play(path)
    return str(problem.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("> fly a", "there is no 'fly' here, but "),
        ("> crash", "usage: crash NAME"),
        ("> crash z", "there is no server z"),
        ("> crash 7", "'7' is no server"),
        ("> tick soon", "'soon' is no time"),
        ("> tick 5us", "whole milliseconds"),
        ('> submit a "apple', "No closing quotation"),
        ("> order a fly b", "order a to fly?"),
        ("> propose b a", "b does not lead"),
        ("> cut a <- b", "cut a -> b, or cut a <-> b"),
        ("> deliver a -> b", "nothing is held between a and b"),
        ("> check luck", "there is no 'luck' here, but "),
        ("> quietly", "there is no '' here"),
        (">", "a command is"),
        ("> servers 3", "the servers are there already"),
    ],
)
def test_a_bad_command_names_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    text = f"A story.\n\n> servers 3\n{line}\n{ENDINGS['servers']}"
    message = told(tmp_path, text)
    assert message.startswith("bad.txt:4: ")
    assert complaint in message


@pytest.mark.parametrize("text", ["", "Only a story.\n", "> tick 1ms\n", "> fly\n"])
def test_a_scene_without_a_stage_is_an_error(tmp_path: Path, text: str) -> None:
    assert "a scene begins with prose and one of servers, shop, link" in told(tmp_path, text)


def test_a_scene_without_its_checks_is_an_error(tmp_path: Path) -> None:
    message = told(tmp_path, "A story.\n> servers 3\n> check prefix\n")
    assert message.startswith("bad.txt:3: a scene ends with '> check prefix', then ")


def test_what_does_not_hold_is_an_error_also_when_regenerating(tmp_path: Path) -> None:
    text = f'A story.\n> servers 3\n> check committed "apple -1"\n{ENDINGS["servers"]}'
    assert told(tmp_path, text).startswith("bad.txt:3: check committed")


# --- the checks themselves --------------------------------------------------------------------


def act(stage: CoreStage, text: str) -> tuple[str, ...]:
    return perform(stage, Command("here:1", text, tuple(text.split())))


@pytest.fixture
def stage() -> CoreStage:
    stage = CoreStage()
    for text in ("servers 3", "elect a", "submit a apple", "tick 100ms"):
        act(stage, text)
    return stage


def test_two_lives_that_lead_in_one_ballot_are_two_leaders(stage: CoreStage) -> None:
    act(stage, "check one-leader-per-ballot")
    leader = stage.scene[1]
    leader.boot += 1
    stage.recorder.note_leader(leader)
    with pytest.raises(ScriptError, match=r"here:1: .*two leaders in 1\.a"):
        act(stage, "check one-leader-per-ballot")


def test_two_histories_are_no_prefixes(stage: CoreStage) -> None:
    act(stage, "check prefix")
    log = stage.scene[2].durable
    log[2] = make_entry(log[1].position, Ballot(9, B), 0, EntryKind.NOOP, b"")
    with pytest.raises(ScriptError, match="b has applied another log"):
        act(stage, "check prefix")
