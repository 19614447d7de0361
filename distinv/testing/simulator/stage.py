"""Runs that follow a story instead of a plan's faults.

A story is written by hand: it waits until something has come about, never for a guessed time, and
then does the next thing. The rest (delays, losses, clocks, disks, clients, elections) is drawn from
the seed, so that one story is told against as many worlds as one likes. A world in which what a
story waits for does not come about fails the run: a story that is not told checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

from distinv.core.leader import Leader
from distinv.core.node import Node
from distinv.entry import NO_BALLOT, Ballot, NodeId
from distinv.testing.simulator.checkers import SafetyViolation
from distinv.testing.simulator.drawing import MS
from distinv.testing.simulator.plan import ELECTIONS, Plan, draw_plan
from distinv.testing.simulator.world import FOREVER_US

if TYPE_CHECKING:
    from distinv.testing.simulator.servers import SimServer
    from distinv.testing.simulator.simulation import Simulation

PATIENCE_US = 10_000 * MS
"""What a story waits for comes within this virtual time."""
HAND_OVERS_MAX = 20
"""Datagrams are lost, so some fail."""


@frozen
class Until:
    """The story goes on when this holds, which is looked at after every turn."""

    what: str
    holds: Callable[[], object]
    within_us: int = PATIENCE_US
    passes: bool = False
    """The story goes on at the end of that time as well."""
    is_due: bool = False
    """It is what the servers owe; else it is what the story is about."""


@frozen
class Heal:
    """Things go well from now on, with these servers; the others stay down.

    The story goes on when all work is done.
    """

    servers: tuple[SimServer, ...]


Story: TypeAlias = Generator[Until | Heal, None, None]


class SituationMissed(Exception):
    """What the story is about did not come about."""


class Overdue(Exception):
    """What the servers owe did not come about."""


@frozen
class Schedule:
    """A story, and the cluster that it is told of."""

    name: str
    story: Callable[[Stage], Story]
    servers: int
    late: tuple[int, ...]
    """Servers that the story starts itself; the others are born already."""

    @property
    def summary(self) -> str:
        return (self.story.__doc__ or "").partition("\n")[0]

    def draw(self, seed: int) -> Plan:
        """The world of that seed, without its faults."""
        plan = draw_plan(seed, hostile=False)
        random = Random(f"schedule {seed}")
        return evolve(
            plan,
            servers=self.servers,
            late=self.late,
            born=True,
            election=random.choice(ELECTIONS),
            loss=min(plan.loss, 0.1),
            slow_disk=-1,
            tight=False,
            skew_us=min(plan.skew_us, 1_000 * MS),  # or leaders hand over because of it
            think_us=random.choice((20, 60, 200)) * MS * plan.clients * plan.callers,
            evict_us=600_000 * MS,
            heal_all=True,
            leftovers=("down",) * len(plan.leftovers),
            faults=(),
        )


class Stage:
    """What a story sees of its run, and what it can do."""

    def __init__(self, schedule: Schedule, run: Simulation) -> None:
        self.run = run
        self.world = run.world
        self.servers = run.servers
        self.clients = run.clients
        self.chance = Random(f"story {run.world.seed} {run.plan.stream}")
        self._story = schedule.story(self)
        self._awaited: Until | Heal | None = next(self._story, None)
        self.healing: tuple[SimServer, ...] | None = None
        """Who heals, once somebody does."""

    # --- what a run asks for ------------------------------------------------------------------

    def play(self) -> None:
        """Run the story to where it heals, and then to its end.

        Raises SituationMissed or Overdue when what it waits for does not come about.
        """
        if self.healing is not None:
            self._awaited = next(self._story, None)
        while isinstance(awaited := self._awaited, Until):
            if not self.world.run_until(self.world.now + awaited.within_us, self._looks):
                if not awaited.passes:
                    owed = awaited.is_due or self.world.healed
                    missed = f"waited in vain until {awaited.what}"
                    raise Overdue(missed) if owed else SituationMissed(missed)
                self._next()
        if isinstance(awaited, Heal):
            self.healing = awaited.servers

    def _looks(self) -> bool:
        self.run.check_spinning()
        if not isinstance(self._awaited, Until) or not self._awaited.holds():
            return False
        self._next()
        return True

    def _next(self) -> None:
        assert isinstance(self._awaited, Until)
        if not self._awaited.passes:
            self.world.note("story", self._awaited.what)
        self._awaited = next(self._story, None)

    # --- waiting ------------------------------------------------------------------------------

    def until(self, what: str, holds: Callable[[], object], within_us: int = PATIENCE_US) -> Until:
        return Until(what, holds, within_us)

    def owed(self, what: str, holds: Callable[[], object]) -> Until:
        """The servers must bring it about, even while the world is as it is."""
        return Until(what, holds, is_due=True)

    def while_passes(self, us: int, unless: Callable[[], object] = lambda: False) -> Until:
        """Go on after so much time, or as soon as `unless`."""
        return Until("time passes", unless, us, passes=True)

    def somebody_leads(self) -> Until:
        return self.until("somebody leads", lambda: self.leader is not None)

    def make_lead(self, server: SimServer) -> Story:
        """The leaders hand over until that one leads."""
        for _ in range(HAND_OVERS_MAX):
            yield self.somebody_leads()
            leader = self.leader
            if leader is None or leader is server:
                break
            self.tell(f"{leader.name} is asked to hand over to {server.name}")
            leader.hand_over(server.node_id)
            yield self.while_passes(self.world.timing.transfer_us, unless=lambda: server.leads)
        self.insist(server.leads, f"{server.name} leads")
        self.tell(f"{server.name} leads")

    def copy_one(self) -> Generator[Until, None, tuple[SimServer, SimServer]]:
        """A server that has worked, and a machine with a copy of its disk as it was then."""
        original = self.chance.choice(self.servers)
        yield self.until("the original has worked", lambda: original.applied > 2)
        yield self.while_passes(self.chance.randrange(300 * MS))
        return original, self.run.copy_of(original)

    # --- what is there ------------------------------------------------------------------------

    @property
    def leader(self) -> SimServer | None:
        """Who leads in the highest ballot."""
        leaders = [server for server in self.servers if server.leads]
        return max(leaders, key=lambda each: self.node(each).promised) if leaders else None

    def node(self, server: SimServer) -> Node:
        assert server.engine is not None, f"{server.name} does not run"
        return server.engine.node

    def voters(self, server: SimServer) -> list[SimServer]:
        """By the last set in its log."""
        ids = self.set_of(server)
        return [each for each in self.servers if each.node_id in ids]

    def set_of(self, server: SimServer) -> tuple[NodeId, ...]:
        current = self.node(server).membership.current()
        return () if current is None else current.ids

    def is_changing(self, server: SimServer) -> bool:
        """Its log ends in, or goes on behind, a voter set that it does not know committed."""
        node = self.node(server)
        return node.voters_index > max(1, node.commit)

    def has_promised(self, server: SimServer) -> Ballot:
        """Durably; nobody while its promise is being written."""
        node = self.node(server)
        durable = node.promise_ticket <= node.durability.durable_ticket
        return node.promised if durable else NO_BALLOT

    def holds_durably(self, server: SimServer, index: int, ballot: object) -> bool:
        """The voter set of that entry is on its disk."""
        node = self.node(server)
        return (
            server.disk.last_index >= index == node.voters_index
            and node.log.ballot_at(index) == ballot
        )

    def streams(self, leader: SimServer, server: SimServer) -> bool:
        """`leader` sends it everything at once, and it has kept up."""
        role = self.node(leader).role
        progress = role.progress_of(server.node_id) if isinstance(role, Leader) else None
        return (
            progress is not None
            and progress.streams_for_us(leader.now) >= 0
            and progress.verified >= self.node(leader).commit
        )

    def agrees(self, servers: list[SimServer], count: int) -> bool:
        """All run, and know one and the same committed set, of so many voters."""
        if not all(each.engine for each in servers):
            return False
        sets = [self.node(each).sets() for each in servers]
        return all(len(each) == 1 and len(each[0]) == count and each == sets[0] for each in sets)

    # --- what a story does --------------------------------------------------------------------

    def tell(self, what: str) -> None:
        self.world.note("story", what)

    def silence(self, source: SimServer, target: SimServer) -> None:
        """Nothing that the one sends, or has sent, reaches the other."""
        self.world.block(source.host, target.host, FOREVER_US)

    def part(self, side: list[SimServer]) -> None:
        """These and the others do not reach one another; clients reach everybody."""
        names = ", ".join(server.name for server in side)
        self.tell(f"{names} {'is' if len(side) == 1 else 'are'} cut off from the others")
        for one in side:
            for other in self.servers:
                if other not in side:
                    self.silence(one, other)
                    self.silence(other, one)

    def lose_nothing_between(self, one: SimServer, other: SimServer) -> None:
        """For what would else be a matter of luck."""
        for source, target in ((one, other), (other, one)):
            self.world.lossy[source.host, target.host] = 0.0

    def join(self) -> None:
        """Everybody reaches everybody again."""
        self.tell("everybody reaches everybody")
        self.world.mend()

    def insist(self, came_about: object, what: str) -> None:
        """Raises SituationMissed when that is not so: the story is not about this world."""
        if not came_about:
            raise SituationMissed(f"not so: {what}")

    def demand(self, must_be: object, what: str) -> None:
        """Raises SafetyViolation when that is not so."""
        if not must_be:
            raise SafetyViolation(f"not so: {what}")
