"""A plugin may waste its budget, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from scene import MS, Scene

from distinv.config import Timing
from distinv.core.elector import Elector
from distinv.core.events import Send, Tell
from distinv.election.api import ElectionAction, ElectionContext, Nominate, SendElection
from distinv.entry import Ballot, NodeId
from distinv.testing.simulator.hostile import HOSTILE, Silent
from distinv.wire.messages import ElectionMessage, NominateHint

ME, B, C, STRANGER = NodeId(1), NodeId(2), NodeId(3), NodeId(99)
GAP = Timing().heartbeat_us


class Script:
    """An election that does whatever a test says."""

    def __init__(self, act: Callable[[], Any], due: Callable[[], Any] = lambda: None) -> None:
        self.act = act
        self.due = due
        self.asked: list[str] = []

    def _say(self, what: str) -> Iterable[ElectionAction]:
        self.asked.append(what)
        return self.act()  # type: ignore[no-any-return]

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        return self._say("suspect")

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        return self._say(f"message {body!r}")

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        return self._say("leader")

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        return self._say("members")

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        return self._say("deadline")

    def deadline(self) -> int | None:
        return self.due()  # type: ignore[no-any-return]


def elector(
    act: Callable[[], Any], due: Callable[[], Any] = lambda: None
) -> tuple[Elector, Script]:
    script = Script(lambda: ())
    found = Elector("scripted", script, ME, Timing())
    found.on_members((ME, B, C), 0)
    script.act, script.due = act, due
    return found, script


def nothing() -> Iterable[ElectionAction]:
    return ()


def test_a_nominee_campaigns_and_another_is_told() -> None:
    found, _ = elector(lambda: [Nominate(ME)])
    found.on_suspect(None, 0)
    assert found.nominated is not None
    assert found.take_effects() == []
    found, _ = elector(lambda: [Nominate(B)])
    found.on_suspect(None, 0)
    assert found.nominated is None
    assert found.take_effects() == [Send(B, NominateHint("scripted"))]


def test_messages_carry_the_label_and_foreign_ones_are_dropped() -> None:
    found, script = elector(lambda: [SendElection(C, b"hello")])
    found.on_message(B, ElectionMessage("scripted", b"x"), 0)
    assert found.take_effects() == [Send(C, ElectionMessage("scripted", b"hello"))]
    found.on_message(B, ElectionMessage("another", b"y"), 0)
    found.on_message(STRANGER, ElectionMessage("scripted", b"z"), 0)
    assert found.take_effects() == []
    assert script.asked[1:] == ["message b'x'"]


def test_strangers_are_neither_nominated_nor_written_to() -> None:
    found, _ = elector(lambda: [Nominate(STRANGER), SendElection(STRANGER, b"")])
    found.on_suspect(None, 0)
    assert found.take_effects() == []
    assert found.nominated is None


def test_nominations_are_limited_in_time() -> None:
    found, _ = elector(lambda: [Nominate(B)])
    for now in range(0, 10 * GAP, GAP // 10):
        found.on_suspect(None, now)
    assert len(found.take_effects()) == 10


def test_messages_are_limited_in_time_and_per_call() -> None:
    found, _ = elector(lambda: [SendElection(B, b"noise")] * 1_000)
    for _ in range(10):
        found.on_suspect(None, 0)
    assert len(found.take_effects()) == 64
    found.on_suspect(None, GAP)
    assert len(found.take_effects()) == 64


def test_an_endless_answer_ends() -> None:
    def endless() -> Iterator[ElectionAction]:
        while True:
            yield Nominate(STRANGER)

    found, _ = elector(endless)
    found.on_suspect(None, 0)
    assert found.take_effects() == []


@pytest.mark.parametrize(
    "act",
    [
        lambda: 1 / 0,
        lambda: None,
        lambda: 42,
        lambda: [SendElection(B, "text")],  # type: ignore[arg-type]
        lambda: ["nonsense", None, object()],
        lambda: [Nominate([])],  # type: ignore[arg-type]
        lambda: [SendElection(None, b"")],  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_survived(act: Callable[[], Any]) -> None:
    found, _ = elector(act)
    found.on_suspect(None, 0)
    found.on_leader(B, Ballot(1, B), 0)
    found.on_message(B, ElectionMessage("scripted", b""), 0)
    assert all(isinstance(effect, Tell) for effect in found.take_effects())
    assert found.nominated is None


def test_a_failure_is_told_but_not_ten_times_a_second() -> None:
    found, _ = elector(lambda: 1 / 0)
    for now in range(0, 3_000 * MS, 10 * MS):
        found.on_suspect(None, now)
    told = found.take_effects()
    assert [type(effect) for effect in told] == [Tell] * 3
    assert "ZeroDivisionError" in told[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("due", [lambda: 1 / 0, lambda: "soon", lambda: None, lambda: 1.5])
def test_a_deadline_that_is_none_is_no_deadline(due: Callable[[], Any]) -> None:
    found, script = elector(nothing, due)
    assert found.deadline() is None
    found.on_deadline(10**9)
    assert script.asked == ["members"]


def test_always_being_due_keeps_nobody_busy() -> None:
    found, script = elector(nothing, lambda: 0)
    now = 10**9
    for _ in range(100):
        found.on_deadline(now)
    assert script.asked.count("deadline") == 1
    again = found.deadline()
    assert again is not None
    assert now < again <= now + GAP


# --- in a node --------------------------------------------------------------------------------


class AlwaysDue(Silent):
    """Its deadline has always passed already."""

    def deadline(self) -> int | None:
        return 0


def test_a_plugin_that_is_always_due_stops_no_election() -> None:
    """Its dates once counted as own lateness, which excused every silent leader for ever."""
    scene = Scene(election=AlwaysDue)
    first = scene.settle()
    first.crash()
    assert scene.run(5_000, lambda: scene.leader is not None)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("latency_ms", "sync_ms"), [(0, 0), (20, 50), (20, 200)])
def test_no_plugin_stops_elections_on_a_slow_network_either(
    name: str, latency_ms: int, sync_ms: int
) -> None:
    """Without a pause after each Prepare, "always-me" out-balloted itself for ever here."""
    scene = Scene(election=HOSTILE[name], latency_us=latency_ms * MS, sync_us=sync_ms * MS)
    assert scene.run(15_000, lambda: scene.leader is not None)


def test_who_campaigns_nominates_nobody_else() -> None:
    class Fickle(Silent):
        def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
            return [Nominate(B)]

    scene = Scene(election=Fickle)
    scene.cut((1, 2), (1, 3))
    server = scene[1]
    server.node.become_candidate("the scene wants it")
    server.node.elector.on_message(C, ElectionMessage("scene", b""), scene.now)
    server.turn()
    assert scene.messages(NominateHint) == []


def test_the_election_of_a_learner_is_asked_nothing() -> None:
    """Who does not vote calls for no election, whenever its plugin wakes it."""
    scripts: dict[NodeId, Script] = {}

    def scripted(context: ElectionContext) -> Script:
        return scripts.setdefault(context.self_id, Script(nothing, lambda: 0))

    scene = Scene(3, learners=1, election=scripted)
    scene.settle()
    for voter in (ME, B, C):
        scene[voter].crash()
    scene.run(10_000)
    asked = scripts[NodeId(4)].asked
    assert asked.count("deadline") > 1_000
    assert "suspect" not in asked


def test_the_context_of_a_hostile_plugin_is_enough_for_it() -> None:
    """The kit's elections are built from the same context as any other."""
    context = ElectionContext(ME, Scene(1).random, Timing())
    assert all(factory(context).deadline() is not False for factory in HOSTILE.values())
