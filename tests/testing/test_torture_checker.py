"""The checker of histories: what it must accept, and every lie that it must find."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from distinv.errors import ConfigError
from distinv.testing.torture.checker import check
from distinv.testing.torture.history import Call, read_history, write_history

Story = list[Call]


def call(
    client: str,
    times: tuple[int, int | None],
    operation: str,
    arguments: dict[str, Any],
    answer: dict[str, Any],
    seq: int | None = None,
) -> Call:
    return Call(client, *times, operation, arguments, answer, seq)


def done(seq: int, *levels: tuple[str, str, int], **more: Any) -> dict[str, Any]:
    return {"outcome": "accepted", "levels": [[*level, seq] for level in levels], **more}


def lines(reference: str, key: str = "", **quantities: int) -> dict[str, Any]:
    found: dict[str, Any] = {"lines": quantities, "reference": reference}
    return found | ({"key": key} if key else {})


SHORT = {"outcome": "refused", "code": "insufficient_stock", "shortages": [["a", "main", 9, 5]]}


def honest() -> Story:
    """A day in which everything that is right happens once."""
    return [
        call("desk", (0, 1), "put_item", {"sku": "a"}, done(1), 1),
        call("desk", (2, 4), "receive", lines("R1", a=10), done(2, ("a", "main", 10)), 2),
        call("till", (5, 8), "ship", lines("R2", a=3), done(3, ("a", "main", 7)), 3),
        # Its caller was told nothing; the audit asks.
        call("till", (9, 20), "ship", lines("R3", a=2), {"outcome": "unknown", "key": "7:3"}),
        call("desk", (21, 25), "ship", lines("R4", a=9), SHORT, 5),
        call("shelf", (22, 24), "levels", {"keys": [["a", "main"]]}, value(("a", "main", 5, 4)), 5),
        # A local read may be old.
        call(
            *("shelf", (26, 27), "levels"),
            {"keys": [["a", "main"]], "read": "local", "min_seq": 2},
            *(value(("a", "main", 7, 3)), 3),
        ),
        # A customer crashes and comes again, twice, with the same key.
        call("who", (28, None), "ship", lines("R5", "k5", a=1), {"outcome": "abandoned"}),
        call("who.2", (30, 31), "ship", lines("R5", "k5", a=1), replay(6, ("a", "main", 4)), 6),
        call("who.3", (32, 33), "ship", lines("R5", "k5", a=1), replay(6, ("a", "main", 4)), 6),
        # Nobody ever learns of these but from the ledger, and of the last not even from there.
        call("till", (34, None), "receive", lines("R6", a=1), {"outcome": "abandoned"}),
        call("desk", (35, None), "ship", lines("R7", a=99), {"outcome": "abandoned"}),
        call(
            *("desk", (40, 41), "transfer"),
            {"lines": {"a": 1}, "source": "main", "destination": "van", "reference": "R8"},
            {"outcome": "refused", "code": "unknown_location"},
            9,
        ),
        call("desk", (42, 43), "ship", lines("R9", a=1), {"outcome": "unavailable", "code": "x"}),
        call("audit", (50, 51), "resolve", {"key": "7:3"}, done(4, ("a", "main", 5)), 4),
        call(
            *("audit", (52, 53), "ledger", {"after": None, "limit": 4}),
            {
                "outcome": "value",
                "entries": [
                    [2, "a", "main", 10, 10, "receive", "R1"],
                    [3, "a", "main", -3, 7, "ship", "R2"],
                    [4, "a", "main", -2, 5, "ship", "R3"],
                    [6, "a", "main", -1, 4, "ship", "R5"],
                ],
                "next": [6, 0],
            },
            9,
        ),
        call(
            *("audit", (54, 55), "ledger", {"after": [6, 0], "limit": 4}),
            {"outcome": "value", "entries": [[7, "a", "main", 1, 5, "receive", "R6"]]},
            9,
        ),
        call(
            *("audit", (56, 56), "servers", {}),
            {"outcome": "value", "servers": [server("server-1"), server("server-2")]},
        ),
    ]


def value(*levels: tuple[str, str, int, int]) -> dict[str, Any]:
    return {"outcome": "value", "levels": [list(level) for level in levels]}


def replay(seq: int, *levels: tuple[str, str, int]) -> dict[str, Any]:
    return done(seq, *levels, replayed=True)


FIVE_A = sha256(b'[["a", 5]]').hexdigest()[:16]


def server(name: str, digest: str = FIVE_A) -> dict[str, Any]:
    return {"name": name, "seq": 9, "digest": digest, "state_digest": "s"}


def test_an_honest_day_is_accepted() -> None:
    judgement = check(honest())
    assert [problem.text for problem in judgement.problems] == []
    assert [each.reference for each in judgement.evidence.unplaced] == ["R7"]
    assert judgement.evidence.last_seq == 9


def change(story: Story, reference: str, **changes: Any) -> Story:
    """The story with another answer to the call of this reference, operation or client."""
    found = [
        each
        for each in story
        if reference in (each.reference, each.operation, each.client) and each.end is not None
    ]
    assert found, reference
    return [
        msgspec.structs.replace(each, **changes) if each is found[-1] else each for each in story
    ]


def row(seq: int, reference: str, *, delta: int = -3, after: int = 7) -> list[Any]:
    return [seq, "a", "main", delta, after, "ship", reference]


def with_rows(story: Story, edit: Callable[[list[Any]], None]) -> Story:
    """The story with other rows in the ledger's first page."""
    (page,) = [each for each in story if each.arguments.get("after", 0) is None]
    entries = [list(entry) for entry in page.answer["entries"]]
    edit(entries)
    changed = msgspec.structs.replace(page, answer=page.answer | {"entries": entries})
    return [changed if each is page else each for each in story]


def without(story: Story, client: str) -> Story:
    return [each for each in story if each.client != client]


LIES: dict[str, tuple[str, Callable[[Story], Story]]] = {
    "an acknowledged command is not in the ledger": (
        "lost",
        lambda story: with_rows(story, lambda rows: rows.remove(row(3, "R2"))),
    ),
    "it was said to have no effect, and has one": (
        "lost",
        lambda story: with_rows(story, lambda rows: rows.append(row(8, "R9"))),
    ),
    "a sale stands in the ledger twice": (
        "twice",
        lambda story: with_rows(story, lambda rows: rows.append(row(8, "R2", after=2))),
    ),
    "two commands have one seq": (
        "twice",
        lambda story: change(story, "R4", answer=done(3, ("a", "main", 7)), seq=3),
    ),
    "a key took effect twice": (
        "twice",
        lambda story: change(story, "who.3", answer=done(8, ("a", "main", 3)), seq=8),
    ),
    "an acknowledgement is answered as another one's repetition": (
        "answer",
        lambda story: change(story, "R2", answer=replay(3, ("a", "main", 7))),
    ),
    "a level is not what a replay gives": (
        "answer",
        lambda story: change(story, "R2", answer=done(3, ("a", "main", 8))),
    ),
    "a level has another version": (
        "answer",
        lambda story: change(
            story, "R2", answer={"outcome": "accepted", "levels": [["a", "main", 7, 2]]}
        ),
    ),
    "there was enough, and it was refused": (
        "answer",
        lambda story: change(story, "R4", arguments=lines("R4", a=5)),
    ),
    "there was not enough, and it was sold": (
        "answer",
        lambda story: change(story, "R4", answer=done(5, ("a", "main", 0))),
    ),
    "it was refused for another reason": (
        "answer",
        lambda story: change(
            story, "R4", answer={"outcome": "refused", "code": "stale_version", "current": 5}
        ),
    ),
    "a shortage is told wrongly": (
        "answer",
        lambda story: change(story, "R4", answer=SHORT | {"shortages": [["a", "main", 9, 4]]}),
    ),
    "an outcome was resolved in two ways": (
        "answer",
        lambda story: [
            *story,
            call("audit", (60, 61), "resolve", {"key": "7:3"}, {"outcome": "none"}),
        ],
    ),
    "it began after a higher seq was answered": (
        "order",
        lambda story: change(story, "R2", start=26, end=28),
    ),
    "a resolved command began after a higher seq was answered": (
        "order",
        lambda story: change(story, "R3", start=26, end=28),
    ),
    "a read misses what was answered before it began": (
        "read",
        lambda story: change(
            story,
            "R9",
            client="shelf",
            operation="levels",
            start=44,
            end=45,
            seq=5,
            arguments={"keys": [["a", "main"]]},
            answer=value(("a", "main", 5, 4)),
        ),
    ),
    "a read shows what never was": (
        "read",
        lambda story: change(story, "shelf", answer=value(("a", "main", 6, 3))),
    ),
    "a local read is older than it was asked to be": (
        "read",
        lambda story: change(story, "shelf", answer=value(("a", "main", 10, 2)), seq=1),
    ),
    "one client's commands take effect in another order": (
        "client",
        lambda story: sorted(change(story, "R2", start=10, end=21), key=lambda each: each.start),
    ),
    "the ledger has other figures": (
        "ledger",
        lambda story: with_rows(story, lambda rows: rows.__setitem__(1, row(3, "R2", after=6))),
    ),
    "the ledger names another reference": (
        "ledger",
        lambda story: with_rows(story, lambda rows: rows.__setitem__(1, row(3, "R99"))),
    ),
    "the ledger holds what nobody asked for": (
        "ledger",
        lambda story: with_rows(story, lambda rows: rows.append(row(8, "R77"))),
    ),
    "there are places that nobody can have": (
        "gap",
        lambda story: [each for each in story if each.reference != "R7"],
    ),
    "servers end in different states": (
        "servers",
        lambda story: change(
            story,
            "servers",
            answer={"outcome": "value", "servers": [server("server-1"), server("2", "x")]},
        ),
    ),
    "all servers end with other stock than the answers tell of": (
        "servers",
        lambda story: change(
            story, "servers", answer={"outcome": "value", "servers": [server("1", "x")]}
        ),
    ),
    "the ledger was not read to its end": (
        "history",
        lambda story: [each for each in story if each.arguments.get("after") != [6, 0]],
    ),
    "the ledger was not read at all": ("history", lambda story: without(story, "audit")),
    "a client is told what no client may be told": (
        "client",
        lambda story: change(story, "R9", answer={"outcome": "error", "code": "bad_datagram"}),
    ),
    "a command that is none": (
        "history",
        lambda story: change(story, "R2", arguments={"reference": "R2"}),
    ),
    "a command whose lines are none": (
        "history",
        lambda story: change(story, "R2", arguments={"reference": "R2", "lines": [1]}),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_it_finds(lie: str) -> None:
    kind, tell = LIES[lie]
    problems = check(tell(honest())).problems
    assert kind in [problem.kind for problem in problems], problems


def test_a_problem_comes_with_the_calls_that_prove_it() -> None:
    story = LIES["a read misses what was answered before it began"][1](honest())
    (problem,) = check(story).problems
    assert problem.text == "it has seq 5, but began after 9 had been answered"
    assert [(each.client, each.seq) for each in problem.calls] == [("shelf", 5), ("desk", 9)]


def test_a_history_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, honest())
    assert read_history(path) == honest()
    assert len(path.read_text("utf-8").splitlines()) == len(honest())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "history.jsonl:2: this is not a call"),
        ("[]", "history.jsonl:2: this is not a call"),
        ('{"client": "a"}', "missing required field"),
        (
            '{"client":"a","start":1,"end":2,"operation":"ship","arguments":{},"answer":{}}',
            "the answer's outcome is one of accepted, refused",
        ),
        (
            '{"client":"a","start":3,"end":2,"operation":"ship","arguments":{},'
            '"answer":{"outcome":"accepted"}}',
            "it ended before it began",
        ),
        (
            '{"client":"a","start":1,"end":2,"operation":"ledger","arguments":{},'
            '"answer":{"outcome":"value","entries":[[1,"a"]]}}',
            "the answer is not of the documented form: Expected `array` of length 7",
        ),
        (
            '{"client":"a","start":1,"end":2,"operation":"levels","arguments":{},'
            '"answer":{"outcome":"value"}}',
            "the answer is not of the documented form: Expected `array`, got `null`",
        ),
    ],
)
def test_what_is_no_history_is_named_by_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, honest()[:1])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=complaint.replace(".", r"\.")):
        read_history(path)


@pytest.mark.parametrize(
    ("operation", "arguments", "complaint"),
    [
        ("frobnicate", {}, "there is no operation 'frobnicate', only put_item, put_location"),
        ("put_item", {}, "missing required field `sku`"),
        ("put_location", {"name": 1}, r"Expected `str`, got `int` - at `\$\.name`"),
        ("ship", {"lines": [1]}, r"Expected `object`, got `array` - at `\$\.lines`"),
        ("ship", {"lines": {"a": "1"}}, r"Expected `int`, got `str` - at `\$\.lines"),
        ("receive", {"lines": {"a": 1}, "location": None}, r"got `null` - at `\$\.location`"),
        ("set_on_hand", {"sku": "a"}, "missing required field `quantity`"),
        ("transfer", {"lines": {"a": 1}, "source": "main"}, "required field `destination`"),
        ("execute", {"operations": [{"operation": "put_item", "arguments": {}}]}, "put_item"),
        ("execute", {"operations": [{"operation": "ship", "arguments": {}}]}, "field `lines`"),
        ("levels", {"keys": ["a"]}, "Expected `array`, got `str`"),
        ("levels", {"keys": [], "read": "old"}, "Invalid enum value 'old'"),
        ("resolve", {}, "missing required field `key`"),
    ],
)
def test_a_call_that_is_none_is_named_by_its_line(
    tmp_path: Path, operation: str, arguments: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "history.jsonl"
    asked = call("a", (1, None), operation, arguments, {"outcome": "abandoned"})
    write_history(path, [*honest()[:1], asked])
    with pytest.raises(ConfigError, match=rf"history\.jsonl:2: .*{complaint}"):
        read_history(path)


def test_what_was_refused_before_it_was_sent_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    refused = {"outcome": "refused", "code": "invalid_request"}
    story = [*honest(), call("a", (60, 61), "ship", {"lines": {"a": 0.5}}, refused)]
    write_history(path, story)
    assert check(read_history(path)).ok


def test_a_missing_history_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        read_history(tmp_path / "none")
