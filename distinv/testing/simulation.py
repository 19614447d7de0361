"""One seed, one run: first things go wrong, then they heal and progress is demanded."""

from __future__ import annotations

from random import Random

from attrs import evolve, frozen

from distinv import config
from distinv.core.events import InvariantBroken
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.testing.checkers import SafetyViolation
from distinv.testing.clients import SimClient
from distinv.testing.hostile import HOSTILE
from distinv.testing.plan import FaultPlan, draw_plan
from distinv.testing.servers import SimServer
from distinv.testing.world import World

PROGRESS_US = 30_000_000
"""Virtual time from healing to the end of all work; calls of before may take their 10 s."""

EVENTS_MAX = 200_000

TIGHT = {
    "append_window_entries": 3,
    "pull_bytes": 400,
    "log_cache_bytes": 500,
    "batch_commands": 3,
    "link_window_bytes": 4_000,
    "link_queue_bytes": 20_000,
}

ELECTIONS: dict[str, ElectionFactory] = {"bully": Bully, "ring": Ring, **HOSTILE}


@frozen
class Outcome:
    """How one seed went."""

    seed: int
    plan: FaultPlan
    failure: str
    """"" when it passed; else "safety: …", "liveness: …" or "crash: …"."""
    digest: str
    """Of every event of the run."""
    events: int
    commands: int
    reads: int
    ballots: int
    entries: int
    lines: tuple[str, ...]


class Simulation:
    """`election` overrides the plan's: that is how a plugin's author tries one."""

    def __init__(
        self,
        seed: int,
        *,
        trace: bool = False,
        hostile: bool | None = None,
        election: ElectionFactory | None = None,
    ) -> None:
        self._random = Random(f"plan {seed}")
        self.plan = draw_plan(self._random, hostile=hostile)
        settings = config.test()
        if self.plan.tight:
            settings = evolve(settings, limits=evolve(settings.limits, **TIGHT))
        self.world = World(seed, self.plan, settings, trace=trace)
        factory = election or ELECTIONS[self.plan.election]
        self.servers = [
            SimServer(self.world, number, factory, self.plan.election, self.plan.servers)
            for number in range(self.plan.servers)
        ]
        self.clients = [SimClient(self.world, number) for number in range(self.plan.clients)]
        for process in (*self.servers, *self.clients):
            self.world.add(process)

    def run(self) -> Outcome:
        failure = ""
        try:
            self._go_wrong()
            failure = self._demand_progress()
        except SafetyViolation as problem:
            failure = f"safety: {problem}"
        except InvariantBroken as problem:
            failure = f"safety: invariant: {problem}"
        except AssertionError as problem:
            failure = f"safety: {problem or 'assertion'}"
        except Exception as problem:  # the run must be reported, whatever broke
            failure = f"crash: {type(problem).__name__}: {problem}"
        world, history = self.world, self.world.history
        return Outcome(
            world.seed,
            self.plan,
            failure,
            world.digest,
            world.events,
            history.answers,
            history.reads,
            history.ballots,
            len(history.hashes) - 1,
            tuple(world.lines or ()),
        )

    # --- phase one ----------------------------------------------------------------------------

    def _go_wrong(self) -> None:
        world, plan, random = self.world, self.plan, self._random
        for server in self.servers:
            world.at(random.randrange(400_000), self._start, server)
        for client in self.clients:
            world.at(random.randrange(600_000), self._start_client, client)
        for every, action in (
            (plan.crash_every_us, self._crash),
            (plan.power_cut_every_us, self._cut_power),
            (plan.pause_every_us, self._pause),
            (plan.partition_every_us, self._partition),
            (plan.transfer_every_us, self._transfer),
        ):
            if every:
                self._schedule(every, action)
        if plan.client_crash:
            self._schedule(500_000, self._client_crash)
        world.run_until(plan.duration_us, lambda: world.events >= plan.events)

    def _schedule(self, every: int, action: object) -> None:
        self.world.after(int(self._random.expovariate(1.0) * every), self._again, every, action)

    def _again(self, every: int, action: object) -> None:
        if not self.world.healed:
            assert callable(action)
            action()
            self._schedule(every, action)

    def _start(self, server: SimServer) -> None:
        if not server.alive:
            server.start()

    def _crash(self) -> None:
        victims = [server for server in self.servers if server.alive]
        leaders = [each for each in victims if each.engine is not None and each.engine.node.serving]
        if not victims:
            return
        aim_at_leader = leaders and self._random.random() < 0.6
        victim = self._random.choice(leaders if aim_at_leader else victims)
        victim.crash()
        self.world.after(self._random.randrange(self.plan.down_us), self._start, victim)

    def _cut_power(self) -> None:
        for server in self.servers:
            if server.alive:
                server.crash()
                back = self._random.randrange(min(self.plan.down_us, 400_000))
                self.world.after(back, self._start, server)

    def _pause(self) -> None:
        victim = self._random.choice((*self.servers, *self.clients))
        victim.paused_until = self.world.now + self._random.randrange(self.plan.pause_us)
        until_ms = victim.paused_until // 1000
        self.world.note(victim.name, f"is paused until {until_ms} ms")

    def _partition(self) -> None:
        random, world = self._random, self.world
        hosts = [process.address[0] for process in (*self.servers, *self.clients)]
        side = [host for host in hosts if random.random() < 0.4]
        rest = [host for host in hosts if host not in side]
        until = world.now + random.randrange(self.plan.partition_us)
        one_way = random.random() < self.plan.one_way
        for one in side:
            for other in rest:
                world.block(one, other, until)
                if not one_way:
                    world.block(other, one, until)
        arrow = "->" if one_way else "<->"
        world.note("network", f"cuts {side} {arrow} {rest} until {until // 1000} ms")

    def _transfer(self) -> None:
        for server in self.servers:
            if server.engine is not None and server.engine.node.serving:
                self.world.note(server.name, "is asked to hand over")
                server.engine.transfer(None, self.world.now)
                server.wake(self.world.now)

    def _client_crash(self) -> None:
        client = self._random.choice(self.clients)
        if client.alive:
            client.crash()
            self.world.after(self._random.randrange(300_000), self._start_client, client)

    def _start_client(self, client: SimClient) -> None:
        if not client.alive:
            client.start()

    # --- phase two ----------------------------------------------------------------------------

    def _demand_progress(self) -> str:
        world = self.world
        world.healed = True
        world.unblock_all()
        world.note("world", "heals")
        for process in (*self.servers, *self.clients):
            process.paused_until = 0
            if process.alive:
                process.wake(world.now)
        for server in self.servers:
            self._start(server)
        for client in self.clients:
            client.wind_up()
        if not world.run_until(world.now + PROGRESS_US, self._finished):
            return f"liveness: {self._what_is_missing()}"
        for client in self.clients:
            if client.problems:
                return f"liveness: {client.problems[0]}"
        world.history.check_denied()
        for server in self.servers:
            assert server.engine is not None
            index = server.engine.machine.position.index
            world.history.on_digest(server.name, index, server.engine.machine.state_digest())
        return ""

    def _finished(self) -> bool:
        if self.world.events > EVENTS_MAX:
            raise SafetyViolation(f"more than {EVENTS_MAX} events: something spins")
        if not all(client.idle and client.final_done for client in self.clients):
            return False
        last = len(self.world.history.hashes) - 1
        return all(
            server.engine is not None and server.engine.machine.position.index == last
            for server in self.servers
        )

    def _what_is_missing(self) -> str:
        busy = [client.name for client in self.clients if not (client.idle and client.final_done)]
        last = len(self.world.history.hashes) - 1
        behind = [
            f"{server.name} ({server.engine.node.standing.value})"
            for server in self.servers
            if server.engine is not None and server.engine.machine.position.index < last
        ]
        leaders = [
            server.name
            for server in self.servers
            if server.engine is not None and server.engine.node.serving
        ]
        return f"leaders {leaders}, unanswered {busy}, behind entry {last}: {behind}"


def simulate(
    seed: int,
    *,
    trace: bool = False,
    hostile: bool | None = None,
    election: ElectionFactory | None = None,
) -> Outcome:
    """Run one seed, with an election of one's own if one is given."""
    return Simulation(seed, trace=trace, hostile=hostile, election=election).run()
