"""Everything that can go wrong in a simulated run: one class each, struck at its time.

A plan is a list of these (`plan.py` draws it). A fault whose target is not there (no leader yet,
fewer clients in a smaller run) does nothing, so that any subset of a plan is a plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from distinv.entry import EntryKind
from distinv.storage.api import BaseRecord, BirthRecord, EntryRecord, PromiseRecord, Record

if TYPE_CHECKING:
    from distinv.testing.simulator.servers import SimServer
    from distinv.testing.simulator.simulation import Simulation

LEADER = "leader"
"""As a target: whoever leads at that moment."""


def _ms(time_us: int) -> str:
    return f"{time_us / 1000:.0f} ms" if time_us >= 1_000 else f"{time_us} us"


@frozen
class Fault(ABC):
    at_us: int

    @abstractmethod
    def strike(self, run: Simulation) -> bool:
        """Do it, now. False when nothing was there to do it to."""


# --- processes ------------------------------------------------------------------------------------


@frozen
class Crash(Fault):
    """A server's machine loses power: what was not synced is lost, or all but a part of it."""

    target: str
    down_us: int

    def __str__(self) -> str:
        return f"{self.target} crashes, for {_ms(self.down_us)}"

    def strike(self, run: Simulation) -> bool:
        servers = [server for server in run.servers_at(self.target) if server.alive]
        for server in servers:
            run.crash(server, self.down_us)
        return bool(servers)


@frozen
class PowerCut(Fault):
    """All servers crash at once. Before that only the leader's disk still ended its writes."""

    down_us: tuple[int, ...]
    """Per server, in their order."""
    held_us: int
    """For so long the other disks have not."""
    leader_us: int
    """For so much longer the machine that led is down."""

    def __str__(self) -> str:
        downs = ", ".join(_ms(down) for down in self.down_us)
        if self.leader_us:
            downs += f", the leader {_ms(self.leader_us)} more"
        held = f" after {_ms(self.held_us)} without a sync but the leader's" if self.held_us else ""
        return f"power cut{held}, for {downs}"

    def strike(self, run: Simulation) -> bool:
        if self.held_us:
            leaders = run.servers_at(LEADER)
            for server in run.servers:
                if server not in leaders:
                    server.disk.stall(run.world.now + self.held_us + 1)
        run.world.after(self.held_us, self._cut, run)
        return True

    def _cut(self, run: Simulation) -> None:
        if not run.world.healed:
            for server, down_us in zip(run.servers, self.down_us):
                run.crash(server, down_us + self.leader_us * server.leads)


@frozen
class Pause(Fault):
    """A process stands still, as by SIGSTOP: a server, or a client."""

    target: str
    for_us: int

    def __str__(self) -> str:
        return f"{self.target} pauses for {_ms(self.for_us)}"

    def strike(self, run: Simulation) -> bool:
        processes = run.targets(self.target)
        for process in processes:
            process.pause(run.world.now + self.for_us)
            run.world.note(process.name, f"is paused for {_ms(self.for_us)}")
        return bool(processes)


@frozen
class ClientCrash(Fault):
    """An application dies; its next life sends its keyed commands again."""

    client: int
    down_us: int

    def __str__(self) -> str:
        return f"client-{self.client} crashes, for {_ms(self.down_us)}"

    def strike(self, run: Simulation) -> bool:
        if self.client >= len(run.clients) or not run.clients[self.client].alive:
            return False
        client = run.clients[self.client]
        client.crash()
        run.world.after(self.down_us, run.start_client, client)
        return True


@frozen
class HandOver(Fault):
    """The leader is ordered to hand over."""

    def __str__(self) -> str:
        return "the leader is asked to hand over"

    def strike(self, run: Simulation) -> bool:
        leaders = run.servers_at(LEADER)
        for server in leaders:
            run.world.note(server.name, "is asked to hand over")
            server.hand_over()
        return bool(leaders)


_KINDS = {"noop": EntryKind.NOOP, "voters": EntryKind.VOTERS}


@frozen
class Trap(Fault):
    """The next server that writes such a record crashes in the middle of it, and returns fast."""

    writing: str
    """promise (to another), noop (a new leader's first entry), entry (a follower's), voters (a
    leader's change of them), base (its log is made shorter, or begins behind a snapshot), birth"""
    how: str
    """`mid-turn`: only a part of the turn's datagrams leave, nothing is written.
    `mid-sync`: all leave, and the sync does not end. `after-sync`: soon after it has ended."""
    down_us: int

    def __str__(self) -> str:
        return f"the next that writes a {self.writing} crashes {self.how}, for {_ms(self.down_us)}"

    def strike(self, run: Simulation) -> bool:
        run.world.note("world", f"lays a trap: {self}")
        run.traps.append(self)
        return True

    def catches(self, server: SimServer, records: Sequence[Record]) -> bool:
        return any(self._matches(server, record) for record in records)

    def _matches(self, server: SimServer, record: Record) -> bool:
        if isinstance(record, EntryRecord):
            own = record.entry.ballot.node == server.node_id
            if self.writing in _KINDS:
                return own and record.entry.kind == _KINDS[self.writing]
            return self.writing == "entry" and not own
        if isinstance(record, PromiseRecord):
            return self.writing == "promise" and record.ballot.node != server.node_id
        if isinstance(record, BaseRecord):
            return self.writing == "base"
        return self.writing == "birth" and isinstance(record, BirthRecord)

    def spring(self, run: Simulation, server: SimServer, records: Sequence[Record]) -> None:
        """`server` is about to crash in it."""
        run.world.note(
            server.name, f"crashes {self.how}, in a trap for who writes a {self.writing}"
        )


@frozen
class Eclipse(Trap):
    """Nobody hears the leader, until one that promises another crashes: that one hears the old
    leader again, and for a while not the other.

    Whoever forgets its promise, or gave it before it was durable, helps both to decide.
    """

    dark_us: int

    def __str__(self) -> str:
        return (
            f"eclipse of the leader for {_ms(self.dark_us)}; the first that promises another "
            f"crashes {self.how}, for {_ms(self.down_us)}"
        )

    def strike(self, run: Simulation) -> bool:
        leaders = run.servers_at(LEADER)
        for leader in leaders:
            run.world.note("network", f"{self}")
            for server in run.servers:
                run.world.block(leader.host, server.host, run.world.now + self.dark_us)
            run.traps.append(self)
        return bool(leaders)

    def spring(self, run: Simulation, server: SimServer, records: Sequence[Record]) -> None:
        super().spring(run, server, records)
        owners = [each.ballot.node for each in records if isinstance(each, PromiseRecord)]
        until = run.world.now + self.dark_us
        for other in run.servers:
            run.world.unblock(other.host, server.host)
            if other.node_id in owners:
                for one in run.servers:
                    run.world.block(other.host, one.host, until)
                run.world.note("network", f"{other.name} is not heard for {_ms(self.dark_us)}")


# --- who belongs to it ----------------------------------------------------------------------------


@frozen
class Arrive(Fault):
    """A server that was not there comes, with a blank disk."""

    target: str

    def __str__(self) -> str:
        return f"{self.target} comes"

    def strike(self, run: Simulation) -> bool:
        servers = [server for server in run.servers_at(self.target) if not server.alive]
        for server in servers:
            run.world.note(server.name, "comes")
            run.start(server)
        return bool(servers)


@frozen
class Blank(Fault):
    """A server loses its disk and returns as a new one, if a majority of the others has theirs."""

    target: str
    down_us: int

    def __str__(self) -> str:
        return f"{self.target} loses its disk, and is down for {_ms(self.down_us)}"

    def strike(self, run: Simulation) -> bool:
        lost = False
        for server in run.servers_at(self.target):
            if run.may_lose(server) and not run.might_begin_anew(server):
                run.world.note(server.name, "loses its disk")
                run.lose(server)
                run.crash(server, self.down_us)
                lost = True
        return lost


@frozen
class Order(Fault):
    """The leader is told that a server shall vote, or shall not."""

    target: str
    votes: bool

    def __str__(self) -> str:
        return f"{self.target} shall {'' if self.votes else 'not '}vote"

    def strike(self, run: Simulation) -> bool:
        pairs = [
            (one, other) for one in run.servers_at(LEADER) for other in run.servers_at(self.target)
        ]
        for leader, server in pairs:
            run.world.note(leader.name, f"is told: {self}")
            leader.order(server.node_id, votes=self.votes)
        return bool(pairs)


# --- network --------------------------------------------------------------------------------------


@frozen
class Cut(Fault):
    """Two sides do not reach one another, or one of them does not reach the other."""

    side: tuple[str, ...]
    """Names; everybody else is on the other side."""
    one_way: bool
    for_us: int

    def __str__(self) -> str:
        arrow = "cannot reach" if self.one_way else "are cut off from"
        return f"{', '.join(self.side)} {arrow} the rest for {_ms(self.for_us)}"

    def strike(self, run: Simulation) -> bool:
        side = [process for name in self.side for process in run.targets(name)]
        rest = [process for process in run.processes if process not in side]
        until = run.world.now + self.for_us
        for one in side:
            for other in rest:
                run.world.block(one.host, other.host, until)
                if not self.one_way:
                    run.world.block(other.host, one.host, until)
        names = ", ".join(process.name for process in side)
        arrow = "no longer reaches" if self.one_way else "is cut off from"
        run.world.note("network", f"{names or 'nobody'} {arrow} the rest for {_ms(self.for_us)}")
        return bool(side and rest)


@frozen
class Bridge(Fault):
    """Servers reach one another only if one of the two is the hub, which keeps restarting."""

    hub: str
    for_us: int
    restart_every_us: int
    """0 for never."""

    def __str__(self) -> str:
        restarts = f", which restarts every {_ms(self.restart_every_us)}"
        return (
            f"only {self.hub} reaches the others for {_ms(self.for_us)}"
            f"{restarts if self.restart_every_us else ''}"
        )

    def strike(self, run: Simulation) -> bool:
        until = run.world.now + self.for_us
        hubs = run.servers_at(self.hub)
        for hub in hubs:
            run.world.note("network", f"{self}")
            spokes = [server for server in run.servers if server is not hub]
            for one in spokes:
                for other in spokes:
                    if one is not other:
                        run.world.block(one.host, other.host, until)
            if self.restart_every_us:
                self._restart(run, until)
        return bool(hubs)

    def _restart(self, run: Simulation, until: int) -> None:
        if run.world.now < until and not run.world.healed:
            for hub in run.servers_at(self.hub):
                run.crash(hub, 10_000)
            run.world.after(self.restart_every_us, self._restart, run, until)


@frozen
class Clog(Fault):
    """What one process sends to another arrives much later, all at once and in any order."""

    source: str
    target: str
    for_us: int

    def __str__(self) -> str:
        return f"the way from {self.source} to {self.target} clogs for {_ms(self.for_us)}"

    def strike(self, run: Simulation) -> bool:
        sources, targets = run.targets(self.source), run.targets(self.target)
        for source in sources:
            for target in targets:
                run.world.clog(source.host, target.host, run.world.now + self.for_us)
                run.world.note("network", f"{self}")
        return bool(sources and targets)


# --- disks and clocks -----------------------------------------------------------------------------


@frozen
class Stall(Fault):
    """A server's disk ends no write."""

    target: str
    for_us: int

    def __str__(self) -> str:
        return f"the disk of {self.target} stalls for {_ms(self.for_us)}"

    def strike(self, run: Simulation) -> bool:
        servers = run.servers_at(self.target)
        for server in servers:
            server.disk.stall(run.world.now + self.for_us)
            run.world.note(server.name, f"has a disk that stalls for {_ms(self.for_us)}")
        return bool(servers)


@frozen
class Fill(Fault):
    """A server's disk is full; once there is room again the server is started again."""

    target: str
    for_us: int

    def __str__(self) -> str:
        return f"the disk of {self.target} is full for {_ms(self.for_us)}"

    def strike(self, run: Simulation) -> bool:
        servers = run.servers_at(self.target)
        for server in servers:
            server.disk.full_until = run.world.now + self.for_us
            run.world.note(server.name, f"has a full disk for {_ms(self.for_us)}")
            run.world.after(self.for_us, run.start, server)
        return bool(servers)


@frozen
class Rot(Fault):
    """A bit flips in a stored entry; only ever on a minority of the disks."""

    target: str
    place: float
    """0 for the first entry, just below 1 for the last."""

    def __str__(self) -> str:
        return f"a stored entry of {self.target} rots at {self.place:.0%} of its log"

    def strike(self, run: Simulation) -> bool:
        struck = False
        for server in run.servers_at(self.target):
            if server.disk.rotten or not run.may_lose(server):
                continue
            index = server.disk.rot(self.place)
            if index:
                run.world.note(server.name, f"has a bit flipped in its stored entry {index}")
                struck = True
        return struck


@frozen
class Jump(Fault):
    """A server's wall clock is set."""

    target: str
    by_us: int

    def __str__(self) -> str:
        return f"the clock of {self.target} jumps by {self.by_us / 1_000_000:+.1f} s"

    def strike(self, run: Simulation) -> bool:
        servers = run.servers_at(self.target)
        for server in servers:
            server.skew_us += self.by_us
            run.world.note(server.name, f"has its clock set by {self.by_us / 1_000_000:+.1f} s")
        return bool(servers)


KINDS = tuple(
    kind.__name__
    for kind in (
        Crash,
        PowerCut,
        Trap,
        Eclipse,
        Pause,
        ClientCrash,
        HandOver,
        Cut,
        Bridge,
        Clog,
        Stall,
        Fill,
        Rot,
        Jump,
        Arrive,
        Blank,
        Order,
    )
)
