"""The built-in multicast passes its suite, and for every property there is one that does not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

import pytest
from numbered import Begin, Numbered, decoder

from distinv.entry import NodeId
from distinv.multicast.api import (
    Deliver,
    Group,
    MulticastAction,
    MulticastContext,
    MulticastFactory,
    Unicast,
)
from distinv.multicast.fanout import Fanout, fanout
from distinv.testing import MulticastSuite
from distinv.testing.conformance.assembly import Assembly, _are_beginnings
from distinv.testing.simulator.planted import CANARY, PLANTED

TestFanout = MulticastSuite.of(fanout)
TestNumbered = MulticastSuite.of(Numbered)

Actions = Iterable[MulticastAction]


class Spoilt(Fanout):
    def __init__(self, context: MulticastContext) -> None:
        self.context = context


class Echoing(Spoilt):
    """Delivers twice, to be sure."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return [Deliver(source, body), Deliver(source, body)]


class Backwards(Spoilt):
    """Delivers in pairs, the younger first."""

    held: bytes | None = None

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        if source != 1:
            return [Deliver(source, body)]
        held, self.held = self.held, body if self.held is None else None
        return [] if held is None else [Deliver(source, body), Deliver(source, held)]


class Anonymous(Spoilt):
    """Forgets whose message it was."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return [Deliver(NodeId(1), body)]


class Selfish(Spoilt):
    """Hears itself."""

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        return [*super().on_send(peers, body, now), Deliver(self.context.self_id, body)]


class Narrow(Spoilt):
    """A datagram to the group for everything, however large."""

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        return [Group(body)]


class Thrifty(Spoilt):
    """What it has said before, it does not say again."""

    last = b""

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        before, self.last = self.last, body
        return [] if body == before else super().on_send(peers, body, now)


class Hasty(Numbered):
    """Delivers what it has, and does not wait for what it has not."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        known = self.sources.get(source)
        actions = list(super().on_message(source, body, now))
        if known is not None and known.waiting:
            known.next = min(known.waiting)
            actions += self.deliver(source, known)
        return actions


class Repeating(Spoilt):
    """After a lost link, everything once more."""

    def __init__(self, context: MulticastContext) -> None:
        super().__init__(context)
        self.sent: list[bytes] = []

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        self.sent.append(body)
        return super().on_send(peers, body, now)

    def on_peer_lost(self, peer: NodeId, now: int) -> Actions:
        return [Unicast(peer, body) for body in self.sent]


class Resentful(Spoilt):
    """Has done with a peer that was lost once."""

    def __init__(self, context: MulticastContext) -> None:
        super().__init__(context)
        self.lost: list[NodeId] = []

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        return super().on_send([peer for peer in peers if peer not in self.lost], body, now)

    def on_peer_lost(self, peer: NodeId, now: int) -> Actions:
        self.lost.append(peer)
        return ()


class Exclusive(Spoilt):
    """Knows those that it has met first."""

    known: tuple[NodeId, ...] = ()

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        self.known = self.known or tuple(peers)
        return super().on_send(self.known, body, now)


TICKETS = itertools.count()


class Unsteady(Numbered):
    def on_deadline(self, now: int) -> Actions:
        return [*super().on_deadline(now), Group(b"%d" % next(TICKETS))]


class Timed(Spoilt):
    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        time.monotonic()
        return super().on_send(peers, body, now)


class Spinning(Spoilt):
    """Its deadline stays where it is."""

    due: int | None = None

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Actions:
        self.due = now
        return super().on_send(peers, body, now)

    def deadline(self) -> int | None:
        return self.due


class Naive(Numbered):
    """Takes every body for one of its own."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        decoder.decode(body)
        return super().on_message(source, body, now)


class Hoarding(Numbered):
    """Keeps what it cannot read for later."""

    def __init__(self, context: MulticastContext) -> None:
        super().__init__(context)
        self.unread: list[bytes] = []

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        self.unread.append(body)
        return super().on_message(source, body, now)


class Mute(Spoilt):
    def on_peer_lost(self, peer: NodeId, now: int) -> Actions:
        return None  # type: ignore[return-value]


class Forgetful(Numbered):
    """Asks for nothing: whoever misses a message stalls."""

    def on_deadline(self, now: int) -> Actions:
        self.due = None
        return ()


REJECTED: list[tuple[str, MulticastFactory]] = [
    ("test_without_faults_everything_arrives", Echoing),
    ("test_without_faults_everything_arrives", Backwards),
    ("test_without_faults_everything_arrives", Anonymous),
    ("test_without_faults_everything_arrives", Selfish),
    ("test_bodies_of_any_size_arrive", Narrow),
    ("test_equal_bodies_are_different_messages", Thrifty),
    ("test_with_bad_datagrams_it_is_in_order_and_without_gaps_or_it_stalls", Narrow),
    ("test_with_bad_datagrams_it_is_in_order_and_without_gaps_or_it_stalls", Hasty),
    ("test_after_a_lost_link_nothing_old_is_delivered", Repeating),
    ("test_after_a_lost_link_it_goes_on", Resentful),
    ("test_after_a_lost_link_it_goes_on", Mute),
    ("test_a_peer_that_comes_later_hears_all_from_then_on", Exclusive),
    ("test_a_peer_that_comes_later_hears_all_from_then_on", Narrow),
    ("test_the_same_calls_give_the_same_actions", Unsteady),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", Timed),
    ("test_after_a_deadline_comes_a_later_one", Spinning),
    ("test_garbage_does_no_harm", Naive),
    ("test_garbage_is_not_remembered_without_bound", Hoarding),
]


@pytest.mark.parametrize(("name", "factory"), REJECTED)
def test_a_broken_multicast_is_rejected(name: str, factory: MulticastFactory) -> None:
    arguments = {"count": 3} if name == "test_without_faults_everything_arrives" else {}
    with pytest.raises(AssertionError):
        getattr(MulticastSuite.of(factory)(), name)(**arguments)


def test_every_property_rejects_something() -> None:
    names = {name for name in dir(MulticastSuite) if name.startswith("test_")}
    rejecting = {name for name, _ in REJECTED}
    assert names - rejecting == {"test_clusters_under_faults_are_safe_and_live"}


def test_a_cluster_that_fails_is_reported() -> None:
    """A multicast breaks no cluster for good, so the core is broken instead."""
    suite = MulticastSuite.of(fanout)()

    def run_them_all() -> None:
        for seed in range(100):
            suite.test_clusters_under_faults_are_safe_and_live(seed)

    with PLANTED[CANARY](), pytest.raises(AssertionError, match=r"seed \d+: safety"):
        run_them_all()


def test_one_that_stalls_keeps_the_promise() -> None:
    MulticastSuite.of(
        Forgetful
    )().test_with_bad_datagrams_it_is_in_order_and_without_gaps_or_it_stalls()


def test_a_failure_tells_what_happened() -> None:
    with pytest.raises(AssertionError, match=r"from 1 to 2: .* delivered 2 times; what happened:"):
        MulticastSuite.of(Echoing)().test_without_faults_everything_arrives(2)


@pytest.mark.parametrize(
    ("delivered", "parts", "fits"),
    [
        ("", ["abc"], True),
        ("ab", ["abc"], True),
        ("ac", ["abc"], False),
        ("abde", ["abc", "def"], True),
        ("de", ["abc", "def"], True),
        ("ef", ["abc", "def"], False),
        ("dea", ["abc", "def"], False),
        ("aab", ["aa", "ab"], True),
        ("aaab", ["aa", "ab"], True),
        ("abb", ["aa", "ab"], False),
    ],
)
def test_beginnings(delivered: str, parts: list[str], fits: bool) -> None:
    bodies = [[letter.encode() for letter in part] for part in parts]
    assert _are_beginnings([letter.encode() for letter in delivered], bodies) == fits


def test_the_assembly_resets_links() -> None:
    net = Assembly(fanout, 2)
    net.send(1, b"lost")
    net.reset(1, 2)
    net.send(1, b"heard")
    net.run(10_000)
    net.check()
    with pytest.raises(AssertionError, match="2 messages were sent"):
        net.check_complete()
    assert isinstance(decoder.decode(b"\x93\x01\x05\x07"), Begin)
