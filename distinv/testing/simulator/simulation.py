"""One seed, one run: first things go wrong, then a quorum heals and progress is demanded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from random import Random

from attrs import evolve, frozen

from distinv import config
from distinv.core.birth import odd_voters
from distinv.core.events import InvariantBroken
from distinv.core.quorum import majority
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    EntryKind,
    NodeId,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.multicast.api import MulticastFactory
from distinv.multicast.fanout import fanout
from distinv.storage.api import Record
from distinv.testing.simulator.checkers import SafetyViolation
from distinv.testing.simulator.clients import SimClient
from distinv.testing.simulator.faults import LEADER, Fault, Trap
from distinv.testing.simulator.hostile import HOSTILE
from distinv.testing.simulator.plan import Plan, draw_plan
from distinv.testing.simulator.servers import SimServer
from distinv.testing.simulator.stage import Overdue, Schedule, SituationMissed, Stage
from distinv.testing.simulator.world import FOREVER_US, Process, World

PROGRESS_US = 20_000_000
"""Virtual time from healing to the end of all work; calls of before may take their 10 s."""

EVENTS_MAX = 200_000
FLAP_US = 700_000
COPIES_FROM = 100
"""Above the numbers of servers."""
PATIENCE_US = 600_000
"""So long a fault waits for its target to be there: about an election."""
LOOKS_EVERY_US = 50_000

TIGHT = {
    "append_window_entries": 3,
    "pull_bytes": 400,
    "log_cache_bytes": 500,
    "batch_commands": 3,
    "link_window_bytes": 4_000,
    "link_queue_bytes": 20_000,
}

BRISK = {
    "discovery_window_us": 100_000,
    "autopilot_us": 40_000,
    "promote_after_us": 150_000,
    "order_us": 400_000,
    "compact_us": 30_000,
    "snapshot_pace_us": 500,
    "roll_call_us": 30_000,
}
"""What takes seconds or minutes outside has to happen in a short run."""

ELECTIONS: dict[str, ElectionFactory] = {"bully": Bully, "ring": Ring, **HOSTILE}


class Spinning(Exception):
    """Events without end, and no progress."""


@frozen
class Outcome:
    """How one seed went."""

    seed: int
    plan: Plan
    failure: str
    """"" when it passed; else "safety: …", "liveness: …" or "crash: …"; of a schedule whose
    situation did not come about, "situation: …"."""
    digest: str
    """Of every event of the run."""
    events: int
    commands: int
    reads: int
    ballots: int
    entries: int
    ended_us: int
    healed_us: int
    """When healing began; 0 when the run ended before."""
    lines: tuple[str, ...]
    struck: tuple[int, ...]
    """The faults that began, by their numbers in the plan."""
    missed: tuple[int, ...]
    """Those whose target was not there; those in neither were dated after the end."""

    def describe_plan(self) -> list[str]:
        """`Plan.describe`, and which of the faults did not happen, and why."""
        settings, *faults = self.plan.describe()
        return [settings, *(line + self._fate(number) for number, line in enumerate(faults))]

    def _fate(self, number: int) -> str:
        if number in self.struck:
            return ""
        if number in self.missed:
            return "  (found nobody to strike)"
        return "  (never came: the run failed first)" if not self.healed_us else NEVER_CAME


NEVER_CAME = "  (never came: phase one ended first)"


class Simulation:
    """`election` overrides the plan's: that is how a plugin's author tries one. With a
    `schedule`, its story takes the place of the plan's faults."""

    def __init__(
        self,
        seed: int,
        plan: Plan,
        *,
        trace: bool = False,
        election: ElectionFactory | None = None,
        multicast: MulticastFactory = fanout,
        schedule: Schedule | None = None,
    ) -> None:
        self.plan = plan
        settings = config.test()
        timing = evolve(settings.timing, **BRISK, evict_after_us=plan.evict_us)
        limits = evolve(settings.limits, log_keep_entries=plan.keep, snapshot_piece_bytes=8_000)
        if plan.tight:
            limits = evolve(limits, **TIGHT)
        settings = evolve(settings, timing=timing, limits=limits)
        self.world = World(seed, plan, settings, trace=trace)
        self.traps: list[Trap] = []
        factory = election or ELECTIONS[plan.election]
        self.servers = [
            SimServer(self.world, number, factory, multicast, self.spring)
            for number in range(plan.servers)
        ]
        self.clients = [SimClient(self.world, number) for number in range(plan.clients)]
        self.copies: list[SimServer] = []
        """Of servers, started from a copy of their disks."""
        self.processes: list[Process] = [*self.servers, *self.clients]
        for process in self.processes:
            self.world.add(process)
        if plan.born:
            self._be_born()
        self._quorum: list[SimServer] = []
        self._lost: list[NodeId] = []
        """Ids that went with their disks."""
        self._healed_us = 0
        self._struck: list[int] = []
        self._random = Random(f"healing {seed} {plan.stream}")
        self._stage = None if schedule is None else Stage(schedule, self)

    def _be_born(self) -> None:
        """What a birth leaves behind; servers beyond the voters are blank."""
        world = self.world
        present = [server for server in self.servers if server.number not in self.plan.late]
        count = odd_voters(len(present), world.config.limits.voters_max)
        ids = sorted(world.random_id() for _ in present[:count])
        voters = tuple(Voter(node, server.name) for node, server in zip(ids, present))
        payload = encode_voters(VoterSet("shop", world.random_id(), voters))
        entry = make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, payload)
        for server, voter in zip(present, voters):
            server.be_born(NodeId(voter.node), entry)

    def run(self) -> Outcome:
        failure = ""
        try:
            self._go_wrong()
            failure = self._demand_progress()
            if self._stage is not None and not failure:
                self._stage.play()
        except SituationMissed as problem:
            failure = f"situation: {problem}"
        except (Spinning, Overdue) as problem:
            failure = f"liveness: {problem}"
        except SafetyViolation as problem:
            failure = f"safety: {problem}"
        except InvariantBroken as problem:
            failure = f"safety: invariant: {problem}"
        except AssertionError as problem:
            where = traceback.extract_tb(problem.__traceback__)[-1]
            failure = f"safety: {str(problem) or f'{where.line}, in {where.name}'}"
        except Exception as problem:  # the run must be reported, whatever broke
            failure = f"crash: {type(problem).__name__}: {problem}"
        world, history = self.world, self.world.history
        return Outcome(
            seed=world.seed,
            plan=self.plan,
            failure=failure,
            digest=world.digest,
            events=world.events,
            commands=history.answers,
            reads=history.reads,
            ballots=history.ballots,
            entries=len(history.hashes) - 1,
            ended_us=world.now,
            healed_us=self._healed_us,
            lines=tuple(world.lines or ()),
            struck=tuple(self._struck),
            missed=tuple(self._missed()),
        )

    # --- what faults use ----------------------------------------------------------------------

    def servers_at(self, target: str) -> list[SimServer]:
        """The server of that name, or whoever leads; nobody, if there is none."""
        if target == LEADER:
            return [server for server in self.servers if server.leads]
        return [server for server in self.servers if server.name == target]

    def targets(self, target: str) -> Sequence[Process]:
        """The same, or a client."""
        clients = [client for client in self.clients if client.name == target]
        return clients or self.servers_at(target)

    def start(self, server: SimServer) -> None:
        """Start a server that is down and can run."""
        full = self.world.now < server.disk.full_until
        if not server.alive and not server.broken and not full:
            server.start()

    def copy_of(self, server: SimServer) -> SimServer:
        """A machine beside the others, with a copy of that one's disk; it does not run yet.

        Nothing is demanded of it, neither now nor when all heals.
        """
        copy = server.beside(COPIES_FROM + len(self.copies), f"copy-of-{server.number}")
        copy.take_copy(server)
        self.copies.append(copy)
        self.world.add(copy)
        self.world.note(server.name, f"its disk is copied, for {copy.name}")
        return copy

    def crash(self, server: SimServer, down_us: int) -> None:
        """Crash a server; it starts again after that time, whether or not it ran."""
        server.crash()
        self.world.after(down_us, self._start_again, server)

    def _start_again(self, server: SimServer) -> None:
        if not self.world.healed:
            self.start(server)

    def start_client(self, client: SimClient) -> None:
        if not client.alive:
            client.start()

    def may_lose(self, server: SimServer) -> bool:
        """Whether its disk, too, may be lost: a majority of every set at stake keeps its own."""
        sets = self._sets_at_stake()
        rotten = [each.node_id for each in self.servers if each.disk.rotten]
        lost = {*self._lost, *rotten, server.node_id}
        most = odd_voters(self.plan.servers, self.world.config.limits.voters_max)
        if len(rotten) + (server.node_id not in rotten) > most - majority(most):
            return False  # whoever rots without knowing it may yet be given a vote
        if not server.disk.last_index:
            return False
        return bool(sets) and all(
            len([voter for voter in voters if voter not in lost]) >= majority(len(voters))
            for voters in sets
        )

    def might_begin_anew(self, server: SimServer) -> bool:
        """With a blank disk, it and others like it could be as many as they wait for, and form a
        cluster of their own. Blank ones remember ids of the past for a while."""
        blank = [each for each in self.servers if each is server or not each.disk.last_index]
        remembered = len(self._lost) + 1 if len(blank) > 1 else 0
        return len(blank) + remembered >= min(self.plan.expect(each.number) for each in blank)

    def lose(self, server: SimServer) -> None:
        """Its disk is gone, and with it its id."""
        self._lost.append(server.node_id)
        server.lose_disk()

    def _sets_at_stake(self) -> list[tuple[NodeId, ...]]:
        """Voter sets that any server may believe to be in play, now or after a restart."""
        return list(dict.fromkeys(each for server in self.servers for each in server.voter_sets()))

    def spring(self, server: SimServer, records: Sequence[Record]) -> Trap | None:
        """The trap that this write sets off, if one is laid for it."""
        if self.traps and not self.world.healed:
            for trap in self.traps:
                if trap.catches(server, records):
                    self.traps.remove(trap)
                    trap.spring(self, server, records)
                    return trap
        return None

    # --- phase one ----------------------------------------------------------------------------

    def _go_wrong(self) -> None:
        world, plan = self.world, self.plan
        for server in self.servers:
            if server.number not in plan.late:
                world.at(world.random.randrange(plan.starts_us), self.start, server)
        for client in self.clients:
            world.at(world.random.randrange(2 * plan.starts_us), self.start_client, client)
        for number, fault in enumerate(plan.faults):
            world.at(fault.at_us, self._strike, number, fault, fault.at_us + PATIENCE_US)
        if self._stage is not None:
            self._stage.play()
        else:
            world.run_until(plan.duration_us, lambda: world.events >= plan.events)

    def _strike(self, number: int, fault: Fault, until: int) -> None:
        """Strike, or wait a little for the target, such as a leader, to be there."""
        world = self.world
        if world.healed:
            return
        self._struck.append(number)  # before: it may be the one that the run fails with
        if not fault.strike(self):
            self._struck.remove(number)
            if world.now < until:
                world.after(LOOKS_EVERY_US, self._strike, number, fault, until)

    def _missed(self) -> Iterator[int]:
        ended_us = self._healed_us or self.world.now
        for number, fault in enumerate(self.plan.faults):
            if number not in self._struck and fault.at_us < ended_us:
                yield number

    # --- phase two ----------------------------------------------------------------------------

    def _demand_progress(self) -> str:
        world = self.world
        world.healed = True
        self._healed_us = world.now
        world.mend()
        self._quorum = self._choose_quorum()
        names = " ".join(server.name for server in self._quorum)
        world.note("world", f"heals {names}")
        for process in self.processes:
            if not isinstance(process, SimServer) or process in self._quorum:
                process.resume()
        for server in self.servers:
            if server in self._quorum:
                server.disk.stalled_until = server.disk.full_until = 0
                server.disk.sync_us = self.plan.sync_us
                self.start(server)
            else:
                self._leave_broken(server, self.plan.leftovers[server.number])
        for client in self.clients:
            client.wind_up()
        if not world.run_until(world.now + PROGRESS_US, self._finished):
            return f"liveness: {self._what_is_missing()}"
        for client in self.clients:
            if client.problems:
                return f"liveness: {client.problems[0]}"
        world.history.check_denied()
        for server in self.servers:
            if server.engine is not None:
                digest = server.engine.machine.state_digest()
                world.history.on_digest(server.name, server.applied, digest)
        return ""

    def _choose_quorum(self) -> list[SimServer]:
        """Everybody whose disk is whole; or as few of the voters as may decide.

        Those that stay broken may look well for long enough to be given votes: there must not be
        room for so many of them that they decide.
        """
        if self._stage is not None and self._stage.healing is not None:
            return list(self._stage.healing)
        whole = [server for server in self.servers if not server.disk.rotten]
        sets = self._sets_at_stake()
        most = odd_voters(len(self.servers), self.world.config.limits.voters_max)
        evicts = self.plan.evict_us < PROGRESS_US  # by a leader that reaches a part, the well ones
        if self.plan.heal_all or evicts or not sets or min(map(len, sets)) < majority(most):
            return whole  # so does one that has not been born

        def needed(voters: tuple[NodeId, ...]) -> int:
            return majority(max(most, len(voters)))

        chosen: list[SimServer] = []
        for number in self.plan.quorum:
            server = self.servers[number] if number < len(self.servers) else None
            if server not in whole or server is None or not server.disk.last_index:
                continue
            missing = [voters for voters in sets if _present(voters, chosen) < needed(voters)]
            if any(server.node_id in voters for voters in missing):
                chosen.append(server)
        enough = all(_present(voters, chosen) >= needed(voters) for voters in sets)
        return chosen if enough else whole

    def _leave_broken(self, server: SimServer, fault: str) -> None:
        """`fault`, one of `plan.LEFTOVERS`, stays with a server outside the quorum for good."""
        world, random = self.world, self._random
        others = [other for other in self.servers if other is not server]
        half = random.sample(others, len(others) // 2)
        hears = {"cut": (), "dark": (), "deaf": (), "half": half}.get(fault, others)
        reaches = {"cut": (), "dark": (), "mute": (), "half": half}.get(fault, others)
        world.note(server.name, f"stays {fault}")
        server.resume()
        for other in others:
            if other not in hears:
                world.block(other.host, server.host, FOREVER_US)
            if other not in reaches:
                world.block(server.host, other.host, FOREVER_US)
        if fault == "dark":
            for client in self.clients:
                world.block(client.host, server.host, FOREVER_US)
                world.block(server.host, client.host, FOREVER_US)
        if fault == "lossy":
            for process in self.processes:
                world.lossy[server.host, process.host] = 0.3
                world.lossy[process.host, server.host] = 0.3
        if fault == "down":
            server.crash()
            return
        if fault == "stalled":
            server.disk.stall(FOREVER_US)
        else:
            server.disk.stalled_until = 0
        self.start(server)
        if fault == "asleep":
            server.pause(FOREVER_US)
        if fault == "flapping":
            self._flap(server)

    def _flap(self, server: SimServer) -> None:
        server.crash()
        self.start(server)
        self.world.after(self._random.randrange(FLAP_US), self._flap, server)

    def check_spinning(self) -> None:
        if self.world.events > EVENTS_MAX:
            raise Spinning(f"more than {EVENTS_MAX} events: something spins")

    def _finished(self) -> bool:
        self.check_spinning()
        for client in self.clients:
            if not (client.final_done and client.idle):
                return False
        return not self._behind()

    def _behind(self) -> list[SimServer]:
        """Servers of the quorum that have not applied everything, but can hear who leads."""
        last = len(self.world.history.hashes) - 1
        behind = [server for server in self._quorum if server.applied < last]
        if behind and any(server.leads for server in self.servers if server not in self._quorum):
            return []  # led from outside, by one that reaches only a part of them
        return behind

    def _what_is_missing(self) -> str:
        busy = [client.name for client in self.clients if not (client.idle and client.final_done)]
        last = len(self.world.history.hashes) - 1
        behind = [
            f"{server.name} ({server.engine.node.standing.value if server.engine else 'down'})"
            for server in self._behind()
        ]
        leaders = [server.name for server in self.servers if server.leads]
        return f"leaders {leaders}, unanswered {busy}, behind entry {last}: {behind}"


def _present(voters: tuple[NodeId, ...], servers: Sequence[SimServer]) -> int:
    return len([server for server in servers if server.node_id in voters])


def simulate(
    seed: int,
    *,
    plan: Plan | None = None,
    trace: bool = False,
    hostile: bool | None = None,
    election: ElectionFactory | None = None,
    multicast: MulticastFactory = fanout,
    schedule: Schedule | None = None,
) -> Outcome:
    """Run one seed: the plan drawn from it (or `plan`), with plugins of one's own if given.

    A `schedule` is told instead of the plan's faults, against the world of that seed.
    """
    if plan is None:
        plan = draw_plan(seed, hostile=hostile) if schedule is None else schedule.draw(seed)
    return Simulation(
        seed, plan, trace=trace, election=election, multicast=multicast, schedule=schedule
    ).run()
