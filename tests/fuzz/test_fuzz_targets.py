"""Untrusted bytes: every way in has a target, and a little of the campaign runs here."""

from __future__ import annotations

import tracemalloc
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinv.entry import HASH_BYTES, Ballot, Entry
from distinv.errors import ConfigError
from distinv.testing.fuzzing import __main__ as command
from distinv.testing.fuzzing import campaign
from distinv.testing.fuzzing.corpus import captured
from distinv.testing.fuzzing.inbox import Outsider
from distinv.testing.fuzzing.registry import TARGETS, chosen, untrusted_functions
from distinv.testing.fuzzing.target import Fuzz
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.messages import Message, ReadIndexReply

LITTLE = settings(
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAMES = sorted(TARGETS)
SCENES = [name for name in NAMES if TARGETS[name].remembers]
DECODERS = [name for name in NAMES if not TARGETS[name].remembers]


def test_every_function_for_untrusted_bytes_has_a_target() -> None:
    functions = untrusted_functions()
    covered = {function for target in TARGETS.values() for function in target.covers}
    assert "wire.codec.decode_untrusted" in functions
    assert sorted(covered) == sorted(set(functions))


@pytest.mark.parametrize("name", NAMES)
def test_a_short_campaign(name: str) -> None:
    report = campaign.run_seed(name, 5, 600)
    assert [failure.problem for failure in report.failures] == []
    assert report.inputs == 600
    assert sum(report.outcomes.values()) == 600


def test_every_message_of_a_datagram_may_raise_the_term_by_a_step() -> None:
    """A step and an ordinary promise in one datagram were taken for a leap of terms."""
    report = campaign.run_seed("insider", 5_000_022, 900)
    assert [failure.problem for failure in report.failures] == []


@pytest.mark.parametrize("name", DECODERS)
@settings(LITTLE, max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes_to_a_decoder(name: str, data: bytes) -> None:
    scene(name).feed(data)


@pytest.mark.parametrize("name", DECODERS)
@settings(LITTLE, max_examples=60)
@given(
    which=st.integers(0, 10_000),
    edits=st.lists(st.tuples(st.integers(0, 2_000), st.binary(max_size=9)), max_size=4),
    cut=st.integers(0, 50),
)
def test_an_edited_example_to_a_decoder(
    name: str, which: int, edits: list[tuple[int, bytes]], cut: int
) -> None:
    examples = examples_of(name)
    data = examples[which % len(examples)]
    for at, piece in edits:
        at %= len(data) + 1
        data = data[:at] + piece + data[at + len(piece) :]
    scene(name).feed(data[: len(data) - cut] if cut < len(data) else data)


@pytest.mark.parametrize("name", SCENES)
@settings(LITTLE, max_examples=6)
@given(inputs=st.lists(st.binary(max_size=120), max_size=40))
def test_any_bytes_to_a_scene(name: str, inputs: list[bytes]) -> None:
    fuzz = TARGETS[name].make(1)
    for data in inputs:
        fuzz.feed(data)
    fuzz.check()


@cache
def scene(name: str) -> Fuzz:
    return TARGETS[name].make(0)


@cache
def examples_of(name: str) -> list[bytes]:
    fuzz = TARGETS[name].make(9)
    return [fuzz.generate() for _ in range(50)]


# --- messages -----------------------------------------------------------------------------------

numbers = st.integers(0, 20) | st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    str: st.text(max_size=20),
    tuple[str, int]: st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 65_535)),
    Ballot: st.builds(Ballot, numbers, numbers),
    Entry: st.builds(
        Entry,
        numbers,
        st.builds(Ballot, numbers, numbers),
        numbers,
        st.integers(0, 255),
        st.binary(max_size=40),
        hashes,
    ),
}


def values(owner: type, name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values that a field may have on the wire."""
    if (owner, name) == (ReadIndexReply, "index"):
        return numbers | st.just(-1)
    if name in ("hash", "digest") and hint is bytes:
        return hashes
    if hint in FIELDS:
        return FIELDS[hint]
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return st.none() | values(owner, name, inner)
    if get_origin(hint) is tuple:
        return st.lists(values(owner, name, arguments[0]), max_size=4).map(tuple)
    return whole(hint)


def whole(kind: type) -> st.SearchStrategy[Any]:
    fields = get_type_hints(kind).items()
    return st.tuples(*(values(kind, name, hint) for name, hint in fields)).map(
        lambda made: kind(*made)
    )


@pytest.mark.parametrize("kind", get_args(Message), ids=lambda kind: str(kind.__name__))
@settings(LITTLE, max_examples=20)
@given(data=st.data())
def test_every_message_survives_the_wire(kind: type, data: st.DataObject) -> None:
    message = data.draw(whole(kind))
    assert decode_untrusted(encode(message)) == message


# --- the campaign itself ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["links", "outsider", "insider", "client", "messages"])
def test_a_seed_is_a_run(name: str) -> None:
    first, second = TARGETS[name].make(3), TARGETS[name].make(3)
    for _ in range(200):
        data = first.generate()
        assert second.generate() == data
        assert first.feed(data) == second.feed(data)
    assert first.sizes() == second.sizes()


def test_the_insider_reaches_what_lies_behind_the_seal() -> None:
    """Two leaders and two followers, together."""
    reached: set[str] = set()
    for seed in (4, 5, 6, 8):
        report = campaign.run_seed("insider", seed, 6_000)
        assert report.outcomes["taken"] > report.outcomes["dropped"]
        reached |= {table for table, size in report.sizes.items() if size}
    assert reached >= {"sessions", "reads", "orders", "wishes", "takers", "snapshot bytes"}


def test_what_an_outsider_sends_takes_up_no_memory() -> None:
    fuzz = Outsider(4)
    inputs = [fuzz.generate() for _ in range(3_000)]
    for data in inputs[:1_000]:
        fuzz.feed(data)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for data in inputs[1_000:]:
            fuzz.feed(data)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1 << 20
    assert peak - before < 4 << 20


def test_a_failure_is_told_with_what_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def take(data: bytes) -> str:
        assert data[:1] != b"\x94", "an array of four"
        return "taken"

    def make(seed: int) -> Fuzz:
        fuzz = messages.make(seed)
        monkeypatch.setattr(fuzz, "feed", take)
        return fuzz

    messages = TARGETS["messages"]
    monkeypatch.setitem(TARGETS, "messages", evolve(messages, make=make))
    assert campaign.run(target="messages", datagrams=500, seed=3, directory=tmp_path) == 1
    said = capsys.readouterr().out
    assert "an array of four" in said
    assert "--target messages --seed 3 --datagrams" in said
    with pytest.raises(AssertionError, match="an array of four"):
        campaign.replay(tmp_path / "fuzz-messages-3.hex")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"zz", "fuzz.hex:1: give a target and its seed, such as 'insider 512'"),
        (b"", "fuzz.hex:1: give a target and its seed"),
        (b"messages", "fuzz.hex:1: give a target and its seed"),
        (b"messages three\n", "fuzz.hex:1: give a target and its seed"),
        (b"messages 3\n00\nzz\n", "fuzz.hex:3: an input is a line of hex, or -"),
        (b"\xff\n", "it is not lines of hex"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_reproducer_is_wrong_usage(
    content: bytes | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fuzz.hex"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--replay", str(path)])
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_atheris_takes_one_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--atheris"])
    assert "--atheris takes one target: give --target NAME" in capsys.readouterr().err


def test_a_directory_is_no_reproducer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--replay", str(tmp_path)])
    assert "cannot be read: Is a directory" in capsys.readouterr().err


def test_a_reproducer_is_fed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = campaign.Failure("messages", 3, 2, "", (b"", b"\x94")).write(tmp_path)
    assert command.main(["--replay", str(path)]) == 0
    assert capsys.readouterr().out == "messages, seed 3: 2 BadDatagram; nothing is wrong\n"


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        *(("--datagrams", "0", 1), ("--datagrams", "x", 1), ("--jobs", "0", 1)),
        *(("--per-seed", "-1", 1), ("--seed", "-1", 0)),
    ],
)
def test_a_wrong_number_is_refused_in_words(
    option: str, value: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([option, value])
    said = f"argument {option}: {value!r} is no whole number of at least {least}"
    assert said in capsys.readouterr().err


def test_a_campaign_is_cut_into_seeds() -> None:
    (target,) = chosen("insider")
    shares = campaign.seeds_of(target, 7, 2 * target.per_seed + 5, 0)
    assert shares == [(7, target.per_seed), (8, target.per_seed), (9, 5)]
    with pytest.raises(ConfigError, match="choose from"):
        chosen("outsiders")


def test_examples_are_of_every_part_of_a_clusters_life() -> None:
    corpus = captured(True)
    kinds = {type(decode_untrusted(body)).__name__ for body in corpus.messages}
    assert kinds >= {"BirthOffer", "Promise", "Append", "Request", "Answer", "AppendMismatch"}
    assert kinds >= {
        "Behind",
        "SnapshotPull",
        "SnapshotPart",
        "Order",
        "TransferOrder",
        "Dismissed",
    }
    assert corpus.commands
    assert corpus.queries
    assert corpus.elections
