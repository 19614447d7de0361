"""`MulticastSuite`: FIFO per sender, gap-free or stalled, and nothing else."""

from __future__ import annotations

from random import Random
from typing import ClassVar, Self

import pytest

from distinv.entry import NodeId
from distinv.multicast.api import MulticastFactory
from distinv.testing.conformance.assembly import Assembly
from distinv.testing.conformance.suite import Suite, growth_of, noise, watched
from distinv.testing.simulator.simulation import simulate

SECOND = 1_000_000
PATIENCE_US = 5 * SECOND
MESSAGES = 40
ANSWERS_MAX = 64
STATE_GROWTH_BYTES_MAX = 200_000
"""What is kept for repairs is bounded; garbage may fill it, and not more."""
SEEDS = 10


class MulticastSuite(Suite):
    """Properties of a multicast.

    The core verifies whatever is delivered, so a multicast costs time and never safety. But it
    relies on the promise: a message out of place is taken for a log that went astray, and
    repaired at the cost of a round trip or more.
    """

    factory: ClassVar[MulticastFactory]

    @classmethod
    def of(cls, factory: MulticastFactory) -> type[Self]:
        """The suite for the multicasts that `factory` makes."""
        return cls._of(factory=staticmethod(factory))

    # --- the promise --------------------------------------------------------------------------

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_without_faults_everything_arrives(self, count: int) -> None:
        """In the order in which it was sent, once, at every peer, and at nobody else."""
        net = Assembly(self.factory, count)
        net.send_many(MESSAGES)
        net.run(PATIENCE_US)
        net.check()
        net.check_complete()

    def test_bodies_of_any_size_arrive(self) -> None:
        """A body is a message of the core: a heartbeat has 50 bytes, a batch a megabyte."""
        net = Assembly(self.factory, 3)
        for size in (0, 1, 50, 1_200, 40_000, 1 << 20):
            net.send(1, b"%d " % size + bytes(size))
        net.run(PATIENCE_US)
        net.check()
        net.check_complete()

    def test_equal_bodies_are_different_messages(self) -> None:
        """The core repeats itself: a heartbeat equals the one before, and both count."""
        net = Assembly(self.factory, 3)
        for _ in range(10):
            net.send(1, b"still here")
        net.run(PATIENCE_US)
        net.check()
        net.check_complete()

    def test_with_bad_datagrams_it_is_in_order_and_without_gaps_or_it_stalls(self) -> None:
        """Datagrams to the group are lost, repeated and overtake each other; links do not.

        What cannot be delivered in its place is not delivered.
        """
        for seed in range(12):
            net = Assembly(self.factory, 4, seed=seed, loss=0.1 * (seed % 4), reordering=True)
            net.send_many(MESSAGES)
            net.run(PATIENCE_US)
            net.check()

    def test_after_a_lost_link_nothing_old_is_delivered(self) -> None:
        """A reset drops what was under way to a peer, and the multicast is told.

        The messages before may end in a gap there, and those after it follow each other again.
        """
        for seed in range(12):
            net = Assembly(self.factory, 3, seed=seed, loss=0.1 * (seed % 3), reordering=True)
            for _ in range(4):
                net.send_many(MESSAGES // 4)
                net.run(net.now + net.random.randrange(3_000))
                net.reset(1 + net.random.randrange(3), 1 + net.random.randrange(3))
            net.run(net.now + PATIENCE_US)
            net.check()

    def test_after_a_lost_link_it_goes_on(self) -> None:
        """The peer is repaired by the core, and from then on wants to hear what all hear."""
        net = Assembly(self.factory, 3)
        net.send_many(5)
        net.run(SECOND)
        net.reset(1, 2)
        net.run(net.now + SECOND)
        for number in range(5):
            net.send(1, b"later %d" % number)
        net.run(net.now + PATIENCE_US)
        net.check()
        net.check_arrived(1, 2, [b"later %d" % number for number in range(5)])

    def test_a_peer_that_comes_later_hears_all_from_then_on(self) -> None:
        """Servers join, and the core multicasts to those that it knows at the time."""
        net = Assembly(self.factory, 4)
        for number in range(6):
            net.send(1, b"to two %d" % number, peers=(2, 3))
        net.run(SECOND)
        for number in range(6):
            net.send(1, b"to three %d" % number, peers=(2, 3, 4))
        net.run(net.now + PATIENCE_US)
        net.check()
        net.check_complete()

    # --- pure ---------------------------------------------------------------------------------

    def test_the_same_calls_give_the_same_actions(self) -> None:
        """A run of the simulator is its seed: what a multicast does may depend on nothing else."""
        first, second = (self._a_bad_day(seed=3).lines for _ in range(2))
        for one, other in zip(first, second, strict=False):
            assert one == other, f"once{one}\nand with the same chance{other}"
        assert len(first) == len(second), "the same calls once led further than the other time"

    def test_it_has_no_clock_no_chance_of_its_own_and_no_io(self) -> None:
        """It is called between two datagrams: what waits for the world stops the server."""
        self._a_bad_day(seed=4)  # what is imported or cached at first use is no matter
        with watched() as calls:
            self._a_bad_day(seed=4)
        assert calls == [], f"it called {', '.join(calls)}"

    def test_after_a_deadline_comes_a_later_one(self) -> None:
        """One that stays due keeps a server busy with nothing; also when it was called late."""
        for loss in (0.0, 0.5, 1.0):
            net = Assembly(self.factory, 3, loss=loss)
            net.send_many(MESSAGES)
            net.run(PATIENCE_US, late_us=SECOND)  # asserts it at each deadline
            net.check()

    # --- bytes of anybody ---------------------------------------------------------------------

    def test_garbage_does_no_harm(self) -> None:
        """Groups hear what anybody with the key sends: another version, another multicast."""
        random = Random(11)
        net = Assembly(self.factory, 3)
        net.send_many(5)
        net.run(PATIENCE_US)
        for body in noise(random, net.bodies()):
            try:
                actions = net.call(2, lambda each: each.on_message(NodeId(1), body, net.now))  # noqa: B023
            except AssertionError:
                raise
            except Exception as error:
                start = f"{body[:40]!r}{'…' if len(body) > 40 else ''} ({len(body)} bytes)"
                raise AssertionError(f"{start} made it raise {error!r}") from error
            assert len(actions) <= ANSWERS_MAX, f"{len(actions)} actions for {body[:40]!r}"

    def test_garbage_is_not_remembered_without_bound(self) -> None:
        """A server runs for months, and what it keeps of each message fills its memory."""
        random = Random(12)
        net = Assembly(self.factory, 3)
        net.send_many(5)
        net.run(PATIENCE_US)
        multicast, real = net.machines[NodeId(2)], net.bodies()

        def feed(number: int) -> None:
            body = random.randbytes(random.randrange(300))
            if real and number % 2:
                body = real[number // 2 % len(real)] + random.randbytes(number % 3)
            try:
                list(multicast.on_message(NodeId(1 if number % 4 else 3), body, net.now + number))
            except Exception:
                pass  # that is another test's affair

        grown = growth_of(multicast, feed)
        assert grown <= STATE_GROWTH_BYTES_MAX, f"3,000 more messages, {grown} more bytes"

    # --- everything together ------------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(SEEDS))
    def test_clusters_under_faults_are_safe_and_live(self, seed: int) -> None:
        """Whole clusters with their clients in the simulator (docs/simulator.md)."""
        outcome = simulate(seed, multicast=self.factory)
        assert outcome.failure == "", f"seed {seed}: {outcome.failure}; {outcome.plan.describe()}"

    # --- scenes -------------------------------------------------------------------------------

    def _a_bad_day(self, *, seed: int) -> Assembly:
        net = Assembly(self.factory, 4, seed=seed, loss=0.2, reordering=True)
        net.send_many(MESSAGES)
        net.run(SECOND)
        net.reset(1, 2)
        net.send_many(MESSAGES)
        net.run(net.now + SECOND)
        return net
