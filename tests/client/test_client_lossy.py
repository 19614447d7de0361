"""A client under loss, crashes and changes of leader: every promise, over many seeds."""

from __future__ import annotations

from random import Random

import pytest
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import NodeId
from distinv.errors import OutcomeUnknown, Unavailable
from distinv.wire.messages import Message, Request


class Chaos:
    """Faults and calls drawn from one seed, then a quiet end in which all must be decided."""

    def __init__(self, seed: int, *, expiry: bool = False) -> None:
        self.random = Random(seed)
        self.expiry = expiry
        self.world = World(3, seed=seed, loss=self.random.choice((0.0, 0.05, 0.15, 0.3)))
        self.limbo: list[Request] = []
        """In the log of a leader that was cut off; some of it will be committed after all."""
        self.calls: dict[int, bytes] = {}
        self.issued = 0
        for server in self.world.servers:
            server.intercept = self.take

    def take(self, server: FakeServer, peer: NodeId, message: Message) -> bool:
        """Sometimes a leader appends a command and can neither commit nor answer."""
        if not isinstance(message, Request) or self.world.leader != server.node:
            return False
        if self.random.random() < 0.05:
            self.limbo.append(message)
            return True
        if self.random.random() < 0.05:
            reason = self.random.choice(("overloaded", "no_leader", "no_quorum"))
            server.refuse(peer, message.session, message.number, message.copy, reason)
            return True
        return False

    def run(self) -> None:
        for _ in range(60):
            for _ in range(self.random.randrange(6)):
                self.call()
            if self.random.random() < 0.3:
                self.fault()
            self.world.run_for(self.random.randrange(200 * MILLISECOND))
        self.heal()

    def call(self) -> None:
        self.issued += 1
        command = b"%d" % self.issued
        call = self.world.submit(command, seconds=self.random.choice((0.02, 0.5, 10)))
        self.calls[call] = command
        if self.random.random() < 0.1:
            if self.random.random() < 0.7:
                self.world.run_for(self.random.randrange(2 * MILLISECOND))
            if call not in self.world.completions:
                self.world.client.detach(call)
                del self.calls[call]

    def fault(self) -> None:
        world = self.world
        number = self.random.randrange(1, 4)
        server = world.by_node[number]
        match self.random.randrange(6):
            case 0 if server.alive:
                world.crash(number)
                world.refusing = self.random.random() < 0.5
                if world.leader == number:
                    world.leader = None
            case 1 if not server.alive:
                world.restart(number)
            case 2:
                world.lead(None, push=self.random.random() < 0.5)
            case 3 if server.alive:
                world.lead(number, push=self.random.random() < 0.7)
            case 4:
                world.cut ^= {server.address}
            case _ if self.limbo:
                world.log.apply(self.limbo.pop(self.random.randrange(len(self.limbo))))
        if self.expiry and self.random.random() < 0.2:
            world.log.expire_all()

    def heal(self) -> None:
        world = self.world
        world.cut.clear()
        for server in world.servers:
            server.intercept = None
            if not server.alive:
                world.restart(server.node)
        world.lead(2)
        world.answer(*(call for call in self.calls if call not in world.completions))
        self.issued += 1
        last = world.submit(b"%d" % self.issued, seconds=30)
        self.calls[last] = b"%d" % self.issued
        (end,) = world.answer(last)
        if not self.expiry:
            assert end.error is None
        for request in self.limbo:
            world.log.apply(request)

    def check(self) -> None:
        effects = self.world.log.effects
        order = [int(each) for each in effects]
        assert order == sorted(set(order)), "twice, or not in the order of issue"
        applied = set(effects)
        for call, command in self.calls.items():
            end = self.world.completions[call]
            if end.error is None:
                assert end.value == b"ok:" + command
                assert command in applied
            elif isinstance(end.error, Unavailable):
                assert command not in applied, "certainly not applied, it said"
            else:
                assert isinstance(end.error, OutcomeUnknown)
        assert not self.world.completions.keys() - self.calls.keys()


@pytest.mark.parametrize("seed", range(30))
def test_exactly_once_and_in_order(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.run()
    chaos.check()
    assert chaos.world.log.opened == 1


@pytest.mark.parametrize("seed", range(100, 120))
def test_exactly_once_and_in_order_when_sessions_expire(seed: int) -> None:
    chaos = Chaos(seed, expiry=True)
    chaos.run()
    chaos.check()


def test_the_same_seed_gives_the_same_run() -> None:
    def trace() -> tuple[int, int, list[bytes]]:
        chaos = Chaos(7)
        chaos.run()
        return chaos.world.now, chaos.world.sent, chaos.world.log.effects

    assert trace() == trace()


def test_a_large_command_passes_under_loss() -> None:
    world = World(loss=0.2, seed=3)
    big = bytes(range(256)) * 1_200
    (end,) = world.answer(world.submit(big))
    assert end.value == b"ok:" + big
    assert world.log.effects == [big]
    assert world.now < 10 * SECOND + 10 * SECOND
