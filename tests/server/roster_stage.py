"""Whole servers in virtual time, and a till with the real client, of which tests ask one by one."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.core.leader import Leader
from distinv.entry import NodeId
from distinv.inventory import calls, queries
from distinv.testing.simulator.drawing import MS
from distinv.testing.simulator.plan import draw_plan
from distinv.testing.simulator.servers import SimServer
from distinv.testing.simulator.simulation import Simulation
from distinv.testing.simulator.world import BROADCAST, FOREVER_US, Process, World
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import ServerInfo, StatusReply

PATIENCE_US = 30_000 * MS


class Till(Process):
    """A client at the servers' network that does what it is told and nothing else."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "till", ("10.0.1.9", 6_000))
        self.session = ClientSession(
            cluster_name="shop",
            endpoint=Endpoint(
                self_id=NodeId(7),
                boot=7,
                seal=world.seal(),
                random=self.random,
                timing=world.timing,
                limits=world.config.limits,
                payload_bytes=1_200,
            ),
            timing=world.timing,
            limits=world.config.limits,
            random=self.random,
            name="till",
            targets=lambda: [BROADCAST],
        )
        self.ended: dict[int, Completion] = {}
        self.homes: list[NodeId | None] = [None]
        """Every server it was attached to, one after the other; None in between."""
        self._due = 0
        world.add(self)
        self.alive = True
        self.wake(10)

    @property
    def now(self) -> int:
        return self.clock.read(self.world.now)

    def submit(self, call: calls.Call[object], seconds: float = 10) -> int:
        number = self.session.submit(call.encode(), self.now, self.now + int(seconds * 1_000_000))
        self.wake(self.world.now)
        return number

    def ask(self, ask: calls.Ask[object], *, linearizable: bool, seconds: float = 10) -> int:
        deadline = self.now + int(seconds * 1_000_000)
        number = self.session.query(ask.encode(), self.now, deadline, linearizable=linearizable)
        self.wake(self.world.now)
        return number

    def turn(self) -> None:
        session, now = self.session, self.now
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            session.receive(data, source, now)
        if now >= self._due:
            session.on_deadline(now)
        for target, data in session.flush(now):
            self.world.send(self.address, target, data)
        session.probes()  # no kernel tells of closed ports here
        for completion in session.take_completions():
            self.ended[completion.call] = completion
        if session.home != self.homes[-1]:
            self.homes.append(session.home)
        self._due = session.deadline()
        self.wake(self.clock.when(self._due) + 20)


class Shop:
    """`servers` of which the `late` ones are started by the test, on a network without faults."""

    def __init__(self, servers: int, *, late: tuple[int, ...] = (), seed: int = 1) -> None:
        plan = evolve(
            draw_plan(seed, hostile=False),
            servers=servers,
            late=late,
            born=True,
            clients=0,
            election="bully",
            loss=0.0,
            duplicate=0.0,
            delay_us=50,
            latency_us=50,
            reaction_us=50,
            sync_us=300,
            slow_disk=-1,
            tight=False,
            skew_us=0,
            rate_ppm=0,
            payload_bytes=1_200,
            evict_us=FOREVER_US,
            keep=10_000,
            faults=(),
        )
        self._run = Simulation(seed, plan)
        self.world = self._run.world
        self.timing = self.world.timing
        self.servers = self._run.servers
        self.till = Till(self.world)
        for server in self.servers:
            if server.number not in late:
                self.start(server)

    def start(self, server: SimServer) -> None:
        self._run.start(server)

    def until(self, holds: Callable[[], object], within_us: int = PATIENCE_US) -> None:
        came = self.world.run_until(self.world.now + within_us, lambda: bool(holds()))
        assert came, "it did not come about"

    def run_for(self, us: int) -> None:
        self.world.run_until(self.world.now + us, lambda: False)

    def ends(self, number: int) -> Completion:
        self.until(lambda: number in self.till.ended)
        return self.till.ended[number]

    def part(self, side: list[SimServer]) -> None:
        """These and the other servers do not reach one another. The till reaches everybody."""
        for one in side:
            for other in [each for each in self.servers if each not in side]:
                self.world.block(one.host, other.host, FOREVER_US)
                self.world.block(other.host, one.host, FOREVER_US)

    @property
    def leader(self) -> SimServer:
        leaders = [server for server in self.servers if server.leads]
        assert len(leaders) == 1
        return leaders[0]

    def settle(self) -> SimServer:
        """Until somebody leads and serves."""
        self.until(lambda: any(server.leads for server in self.servers))
        return self.leader

    def put_mugs(self) -> None:
        """And the till has a home and a session."""
        assert self.ends(self.till.submit(calls.put_item("mug"))).error is None
        assert self.ends(self.till.submit(calls.receive({"mug": 5}))).error is None

    def server_of(self, node: NodeId | None) -> SimServer:
        return next(server for server in self.servers if server.node_id == node)


def status(server: SimServer) -> StatusReply:
    assert server.engine is not None
    return server.engine.status()


def shown(server: SimServer) -> dict[str, tuple[str, bool]]:
    """Everybody's role and vote, as this server tells it."""
    return {info.name: (info.role, info.votes) for info in status(server).servers}


def info_of(server: SimServer, other: SimServer) -> ServerInfo:
    """What the one says of the other."""
    return next(info for info in status(server).servers if info.node == other.node_id)


def streams(leader: SimServer, server: SimServer) -> bool:
    assert leader.engine is not None
    role = leader.engine.node.role
    progress = role.progress_of(server.node_id) if isinstance(role, Leader) else None
    return progress is not None and progress.streams_for_us(leader.now) >= 0


def level_of(completion: Completion) -> tuple[int, int]:
    """What is on hand, and as of which seq."""
    assert isinstance(completion.value, bytes)
    answer = queries.decode_answer(completion.value)
    assert isinstance(answer, queries.Levels)
    return answer.levels[0].on_hand, answer.seq
