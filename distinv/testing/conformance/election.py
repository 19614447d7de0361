"""`ElectionSuite`: what the core relies on when it asks an election whom to nominate."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import ClassVar, Self

import pytest

from distinv.election.api import ElectionFactory
from distinv.entry import Ballot, NodeId
from distinv.testing.conformance.electorate import ANSWER_US, BODY_BYTES_MAX, TIMING, Electorate
from distinv.testing.conformance.suite import Suite, growth_of, noise, watched
from distinv.testing.simulator.simulation import simulate

SECOND = 1_000_000
PATIENCE_US = 10 * SECOND
"""In which somebody must be nominated: the watchdog helps after one second, but costs time."""
CALM_US = 2 * SECOND
"""So long after a leader took office may messages of before have consequences."""
SENDS_PER_HEARTBEAT = 64
REMINDERS_PER_HEARTBEAT = 10
ROUND_SENDS_MAX = 200
"""Of seven servers that all suspect at once: twice what each asking each and two answers cost."""
STATE_GROWTH_BYTES_MAX = 20_000
SEEDS = 20


class ElectionSuite(Suite):
    """Properties of an election.

    An election costs time and never safety, so most of them are about progress: whoever is
    nominated must be able to lead, somebody must be, and nobody may drown the others.
    """

    factory: ClassVar[ElectionFactory]

    @classmethod
    def of(cls, factory: ElectionFactory) -> type[Self]:
        """The suite for the elections that `factory` makes."""
        return cls._of(factory=staticmethod(factory))

    # --- pure ---------------------------------------------------------------------------------

    def test_the_same_calls_give_the_same_actions(self) -> None:
        """A run of the simulator is its seed: what an election does may depend on nothing else."""
        first, second = (self._a_bad_day(seed=3).lines for _ in range(2))
        for one, other in zip(first, second, strict=False):
            assert one == other, f"once{one}\nand with the same chance{other}"
        assert len(first) == len(second), "the same calls once led further than the other time"

    def test_it_has_no_clock_no_chance_of_its_own_and_no_io(self) -> None:
        """The core calls it between two datagrams: what waits for the world stops the server.

        Time is an argument, and chance is `ElectionContext.random`.
        """
        self._a_bad_day(seed=4)  # what is imported or cached at first use is no matter
        with watched() as calls:
            self._a_bad_day(seed=4)
        assert calls == [], f"it called {', '.join(calls)}"

    # --- nominees -----------------------------------------------------------------------------

    def test_alone_it_nominates_itself(self) -> None:
        """A cluster of one server has nobody to ask."""
        net = Electorate(self.factory, 1)
        net.suspect([1], None)
        assert net.run_until_nominated(SECOND), f"nobody within a second; {net.tale()}"

    @pytest.mark.parametrize("count", [2, 3, 5, 7])
    def test_without_faults_all_nominate_the_same(self, count: int) -> None:
        """Two nominees campaign against each other, and may both lose."""
        net = self._leaderless(count)
        net.suspect(net.alive(), count)
        assert net.run_until_nominated(SECOND), f"nobody within a second; {net.tale()}"
        net.run(net.now + ANSWER_US // 2)
        assert len(net.nominated()) == 1, f"nominated are {net.nominated()}; {net.tale()}"

    @pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
    @pytest.mark.parametrize("count", range(1, 8))
    def test_somebody_alive_is_nominated(self, count: int, loss: float) -> None:
        """However many messages are lost, and though the leader and a minority are dead.

        Not everybody has to notice the leader's end: a single server that does is enough.
        """
        for seed in range(6):
            net = self._leaderless(count, seed=seed, loss=loss)
            alive = net.alive()
            net.kill(*net.random.sample(alive, (len(alive) - 1) // 2))
            alive = net.alive()
            suspicious = alive if seed % 2 else alive[seed // 2 % len(alive) :]
            net.suspect(suspicious, count, within_us=300_000)
            assert net.run_until_nominated(PATIENCE_US), (
                f"seed {seed}: nobody that lives within {PATIENCE_US / SECOND:g} s; {net.tale()}"
            )

    def test_a_nominee_that_dies_is_followed_by_another(self) -> None:
        """State follows events, not promises: whoever was nominated may be gone."""
        for seed in range(10):
            net = self._leaderless(5, seed=seed, ordains=True)
            net.suspect(net.alive(), 5, within_us=50_000)
            nominee = net.run_until_nominated(PATIENCE_US)
            assert nominee is not None, f"nobody; {net.tale()}"
            net.kill(nominee)
            found = net.run(net.now + PATIENCE_US, lambda: net.leader is not None)  # noqa: B023
            assert found, f"seed {seed}: {nominee} died, and nobody else led; {net.tale()}"

    def test_a_crash_in_the_middle_costs_a_round_only(self) -> None:
        """Whoever was about to answer, or to be asked, may die at any moment."""
        for seed in range(20):
            net = self._leaderless(7, seed=seed, loss=0.1 * (seed % 3), ordains=True)
            net.suspect(net.alive(), 7, within_us=100_000)
            for node in net.random.sample(net.alive(), 2):
                net.at(net.random.randrange(250_000), _later(net.kill, node))
            net.run(400_000)
            if net.leader is None:
                net.suspect(net.alive(), None, within_us=100_000)
            found = net.run(net.now + PATIENCE_US, lambda: net.leader is not None)  # noqa: B023
            assert found, f"seed {seed}: no leader; {net.tale()}"

    def test_voters_come_and_go_in_the_middle(self) -> None:
        """The voter set changes by the log, whatever an election is doing.

        Who has gone is not nominated any more, and who has come may be.
        """
        for seed in range(10):
            net = self._leaderless(5, seed=seed, loss=0.1)
            net.suspect(net.alive(), 5, within_us=50_000)
            net.run(net.random.randrange(1, 200_000))
            voters = (1, 2, 6)
            net.join(6, voters)
            for node in net.alive():
                net.vote_with(node, voters)
            changed = net.now
            net.run(changed + PATIENCE_US, lambda: bool(net.nominated(changed)))  # noqa: B023
            nominees = net.nominated(changed)
            assert nominees, f"seed {seed}: nobody after the change; {net.tale()}"
            assert set(nominees) <= set(voters), f"seed {seed}: {nominees}; {net.tale()}"

    def test_one_that_does_not_vote_nominates_nobody_but_voters(self) -> None:
        """A server is told of the voters, and may not be among them: it cannot lead."""
        net = Electorate(self.factory, 2)
        net.join(9, (1, 2))
        net.call(9, lambda election: election.on_suspect(NodeId(1), net.now))
        for body in self._bodies():
            net.send(1, 9, body)
        net.run(5 * SECOND)

    def test_one_that_is_voted_out_in_the_middle_nominates_no_longer_itself(self) -> None:
        """Its campaign would disturb those that still vote."""
        for after_us in (0, ANSWER_US // 2, ANSWER_US * 3):
            net = self._leaderless(4)
            net.suspect(net.alive(), 4)
            net.run(after_us + 1)
            for node in net.alive():
                net.vote_with(node, (1, 2))
            net.run(net.now + 5 * SECOND)

    # --- the end ------------------------------------------------------------------------------

    def test_a_leader_ends_it_at_once_where_it_is_heard(self) -> None:
        """A nomination against a leader in office is a campaign that costs all a round trip."""
        for count in (1, 2, 5):
            for after_us in (0, 1_000, ANSWER_US + 1):
                net = Electorate(self.factory, count)
                net.call(1, lambda election: election.on_suspect(None, net.now))  # noqa: B023
                net.kill(*range(2, count + 1))  # so that nobody suspects or answers
                net.run(after_us)
                begun = len(net.nominations)
                net.leader = NodeId(count)
                ballot = Ballot(3, count)
                net.call(
                    1,
                    lambda election: election.on_leader(NodeId(count), ballot, net.now),  # noqa: B023
                )
                net.run(net.now + PATIENCE_US)
                assert len(net.nominations) == begun, f"it goes on all the same; {net.tale()}"

    def test_under_a_leader_that_all_hear_nobody_is_nominated(self) -> None:
        """Messages that were under way may still have consequences, but only for a short while."""
        for seed in range(10):
            net = self._leaderless(5, seed=seed, loss=0.1 * (seed % 3))
            net.suspect(net.alive(), 5, within_us=50_000)
            net.run(net.random.randrange(300_000))
            net.lead(4)
            calm = net.now + CALM_US
            net.run(calm + 5 * PATIENCE_US)
            late = [each for each in net.nominations if each.at > calm]
            assert not late, f"seed {seed}: {late[0]} under a healthy leader; {net.tale()}"
            talk = [when for when, _, _ in net.sends if when > calm]
            assert not talk, f"seed {seed}: it talks on under a healthy leader; {net.tale()}"

    # --- its appetite -------------------------------------------------------------------------

    def test_one_election_takes_few_messages(self) -> None:
        """They share the network with the leader's heartbeats, of which there are too few now."""
        net = self._leaderless(7, ordains=True)
        net.suspect(net.alive(), 7)
        found = net.run(2 * SECOND, lambda: net.leader is not None)
        assert found, f"nobody leads within two seconds; {net.tale()}"
        net.run(net.now + CALM_US)
        count = len(net.sends)
        assert count <= ROUND_SENDS_MAX, f"{count} messages of six servers; {net.tale()}"

    def test_as_long_as_nobody_leads_it_keeps_within_its_budget(self) -> None:
        """The core heeds 64 messages, ten deadlines and one nomination per heartbeat interval.

        Whatever is beyond that is dropped, so an election that needs more does not work.
        """
        net = self._leaderless(7)
        net.suspect(net.alive(), 7, within_us=50_000)
        net.run(20 * SECOND)
        sends = [(when, source) for when, source, _ in net.sends]
        nominations = [(each.at, each.by) for each in net.nominations]
        for what, events, most in (
            ("messages", sends, SENDS_PER_HEARTBEAT),
            ("deadlines", net.reminders, REMINDERS_PER_HEARTBEAT),
            ("nominations", nominations, 1),
        ):
            count, node, when = _busiest(events)
            assert count <= most, (
                f"{node} has {count} {what} within the {TIMING.heartbeat_us / 1000:g} ms "
                f"from {when / 1000:g} ms on, of which the core heeds {most}"
            )

    def test_after_a_deadline_comes_a_later_one(self) -> None:
        """One that stays due keeps a server busy with nothing; also when it was called late."""
        for late_us in (0, 1_000, 10 * SECOND):
            net = self._leaderless(3, loss=1.0)
            net.suspect([1], 3)
            net.run(1)
            for _ in range(20):
                due = net.machines[NodeId(1)].deadline()
                if due is None:
                    break
                net.now = max(net.now, due + late_us)
                net.remind(NodeId(1))

    # --- bytes of anybody ---------------------------------------------------------------------

    def test_garbage_is_ignored(self) -> None:
        """A body is whatever a peer sent: another version's, another election's, or nobody's.

        What is raised is logged and costs nothing else, but the message it spoils is lost.
        """
        random = Random(11)
        for state in ("at rest", "in the middle", "led"):
            net = self._in_state(state)
            for body in noise(random, self._bodies()):
                try:
                    net.call(2, lambda election: election.on_message(NodeId(1), body, net.now))  # noqa: B023
                except AssertionError:
                    raise
                except Exception as error:
                    start = f"{body[:40]!r}{'…' if len(body) > 40 else ''} ({len(body)} bytes)"
                    raise AssertionError(f"{state}, {start} made it raise {error!r}") from error

    def test_garbage_is_not_remembered(self) -> None:
        """A server runs for months, and what it remembers of each message fills its memory."""
        random = Random(12)
        net = Electorate(self.factory, 3)
        election = net.machines[NodeId(2)]
        list(election.on_suspect(None, 0))
        real = self._bodies()

        def feed(number: int) -> None:
            body = random.randbytes(random.randrange(60))
            if real and number % 2:
                body = real[number // 2 % len(real)] + random.randbytes(number % 3)
            try:
                list(election.on_message(NodeId(1 if number % 4 else 3), body, number))
            except Exception:
                pass  # that is another test's affair

        grown = growth_of(election, feed)
        assert grown <= STATE_GROWTH_BYTES_MAX, f"3,000 more messages, {grown} more bytes"

    def test_a_message_does_not_start_a_storm(self) -> None:
        """Answers that are answered circulate for ever, and more with every lost datagram."""
        random = Random(13)
        real = self._bodies()
        net = Electorate(self.factory, 5)
        net.lead(5)
        for body in [*real, *(random.randbytes(20) for _ in range(20))]:
            for to in (1, 2, 3, 4, 5):
                net.send(1 if to != 1 else 2, to, body[:BODY_BYTES_MAX])
        sent = len(net.sends)
        net.run(CALM_US)
        net.lead(5)
        net.run(net.now + CALM_US)
        calm = net.now
        net.run(calm + PATIENCE_US)
        late = [when for when, _, _ in net.sends[sent:] if when > calm]
        assert not late, f"{len(late)} messages are still sent; {net.tale()}"

    # --- everything together ------------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(SEEDS))
    def test_clusters_under_faults_are_safe_and_live(self, seed: int) -> None:
        """Whole clusters with their clients in the simulator (docs/simulator.md).

        Servers crash, datagrams are lost, networks are cut; then all is healed, and every call
        has to end.
        """
        outcome = simulate(seed, election=self.factory)
        assert outcome.failure == "", f"seed {seed}: {outcome.failure}; {outcome.plan.describe()}"

    # --- scenes -------------------------------------------------------------------------------

    def _leaderless(
        self, count: int, *, seed: int = 0, loss: float = 0.0, ordains: bool = False
    ) -> Electorate:
        """The server with the highest id led, and has just died; alone it lives."""
        net = Electorate(self.factory, count, seed=seed, loss=loss, ordains=ordains)
        if count > 1:
            net.lead(count)
            net.kill(count)
        return net

    def _a_bad_day(self, *, seed: int) -> Electorate:
        """A little of everything."""
        net = self._leaderless(5, seed=seed, loss=0.2, ordains=True)
        net.suspect(net.alive(), 5, within_us=50_000)
        net.at(150_000, _later(net.kill, 4))
        net.run(SECOND)
        net.suspect(net.alive(), 4, within_us=50_000)
        net.run(net.now + 2 * SECOND)
        for node in net.alive():
            net.vote_with(node, (1, 2))
        net.leader = None
        net.suspect([1, 2], None, within_us=50_000)
        net.run(net.now + 2 * SECOND)
        return net

    def _bodies(self) -> list[bytes]:
        """What it really sends, each body once."""
        net = self._leaderless(4, seed=5)
        net.suspect(net.alive(), 4)
        net.run(SECOND)
        return list(dict.fromkeys(send.body for _, _, send in net.sends))[:200]

    def _in_state(self, state: str) -> Electorate:
        net = Electorate(self.factory, 3)
        if state == "in the middle":
            net.call(2, lambda election: election.on_suspect(NodeId(3), 0))
        elif state == "led":
            net.lead(3)
        return net


def _later(kill: Callable[[int], None], node: int) -> Callable[[], None]:
    return lambda: kill(node)


def _busiest(events: list[tuple[int, NodeId]]) -> tuple[int, int, int]:
    """The most that one server did within a heartbeat interval: how often, who, and since when."""
    worst = (0, 0, 0)
    recent: dict[NodeId, list[int]] = {}
    for when, node in events:
        mine = [each for each in recent.get(node, []) if each > when - TIMING.heartbeat_us]
        mine.append(when)
        recent[node] = mine
        if len(mine) > worst[0]:
            worst = (len(mine), node, mine[0])
    return worst
