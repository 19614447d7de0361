"""A simulated client: the real session machine under a made-up shop's work."""

from __future__ import annotations

from random import Random

from attrs import define

from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.client.stream import Command
from distinv.errors import OutcomeUnknown, Unavailable
from distinv.inventory import calls, queries
from distinv.inventory.calls import Call
from distinv.model import Receipt
from distinv.testing.simulator.checkers import Pledge, SafetyViolation
from distinv.testing.simulator.world import BROADCAST, Process, World
from distinv.wire.endpoint import Endpoint

SKUS = ("apple", "Äpfel", "bolt")
LOCATIONS = ("main", "shelf")


_PATIENCES_US = (0, 0, 0, 50_000, 700_000, 1_500_000)
"""How long a run's clients wait for an answer; 0 for the client's own default."""


@define
class _Asked:
    level: tuple[str, str]
    floor: int
    linearizable: bool


class SimClient(Process):
    """Keeps a few calls under way until it is told to stop; then one last write and read."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, f"client-{number}", (f"10.0.1.{number + 1}", 6000))
        self._life = 0
        self._random = Random(f"work {number} {world.seed} {world.plan.stream}")
        self._calls: dict[int, Pledge | _Asked] = {}
        self._commands: dict[int, Command] = {}
        """The session's own record of each write under way: its number, once it has one."""
        patience = Random(f"patience {world.seed}").choice(_PATIENCES_US)
        self._patience_us = patience or world.timing.client_deadline_us
        self._due = 0
        self._issue = 0
        self._keys = 0
        self._resend: list[tuple[str, tuple[tuple[str, int], ...]]] = []
        """Keyed commands whose caller crashed before it knew: sent again by the next life."""
        self._final: list[int] = []
        self.session: ClientSession | None = None
        self.winding_up = False
        self.final_done = False
        self.problems: list[str] = []

    @property
    def now(self) -> int:
        """By its own monotonic clock."""
        return self.clock.read(self.world.now)

    def start(self) -> None:
        world = self.world
        self._life += 1
        self.who = f"{self.name}/{self._life}"
        random = Random(f"{self.who} {world.seed} {world.plan.stream}")
        endpoint = Endpoint(
            self_id=world.random_id(),
            boot=world.random_id(),
            seal=world.seal(),
            random=random,
            timing=world.timing,
            limits=world.config.limits,
            payload_bytes=world.plan.payload_bytes,
        )
        self.session = ClientSession(
            cluster_name="shop",
            endpoint=endpoint,
            timing=world.timing,
            limits=world.config.limits,
            random=random,
            name=self.who,
            targets=lambda: [BROADCAST],
        )
        self.alive = True
        self._due = self.now
        self._calls.clear()
        self._commands.clear()
        if self._life == 1:
            self._submit(calls.put_location("shelf"))
            for sku in SKUS:
                self._submit(calls.put_item(sku, name=sku.title()))
        for key, lines in self._resend:
            self._submit(calls.receive(dict(lines), idempotency_key=key))
        self._resend.clear()
        for _ in range(self.world.plan.callers):
            self._call_later()
        self.wake(world.now + 10)

    def crash(self) -> None:
        """The application dies; its next life sends its keyed commands again."""
        self.world.note(self.who, f"crashes with {len(self._calls)} calls under way")
        self.session = None
        self.stop()

    # --- work ---------------------------------------------------------------------------------

    def _call_later(self) -> None:
        think_us = self._random.randrange(self.world.plan.think_us)
        self.world.after(think_us, self._work, self._life)

    def _work(self, life: int) -> None:
        if life != self._life or self.session is None or self.winding_up:
            return
        if self._random.random() < 0.3:
            self._ask()
        else:
            self._submit(self._draw())
        self.wake(self.world.now + 5)

    def _draw(self) -> Call[Receipt]:
        random = self._random
        sku, location = random.choice(SKUS), random.choice(LOCATIONS)
        lines = {sku: random.randrange(1, 8)}
        if random.random() < 0.2:
            lines[random.choice(SKUS)] = random.randrange(1, 8)
        kind = random.randrange(8)
        if kind <= 1:
            return calls.receive(lines, location=location)
        if kind == 2:
            self._keys += 1
            key = f"{self.name}-key-{self._keys}"
            self._resend.append((key, tuple(lines.items())))
            del self._resend[:-3]
            return calls.receive(lines, idempotency_key=key)
        if kind <= 4:
            return calls.ship(lines, location=location)
        if kind == 5:
            return calls.transfer(lines, source="main", destination="shelf")
        if kind == 6:
            return calls.adjust(sku, random.randrange(-5, 6) or 1, location=location)
        if random.random() < 0.1:
            return calls.ship({"no-such-sku": 1})
        return calls.execute(
            [calls.receive(lines, location=location), calls.ship({sku: 3}, location=location)]
        )

    def _submit(self, call: Call[object]) -> int:
        assert self.session is not None
        world = self.world
        patience_us = world.timing.client_deadline_us if self.winding_up else self._patience_us
        now = self.now
        self._issue += 1
        number = self.session.submit(call.encode(), now, now + patience_us, call.idempotency_key)
        self._calls[number] = Pledge(self.who, self._issue, world.history.told_seq)
        command = self.session._book.get(number)
        assert isinstance(command, Command)
        self._commands[number] = command
        if not self.winding_up and self._random.random() < world.plan.cancel:
            world.after(self._random.randrange(20_000), self._cancel, self._life, number)
        return number

    def _ask(self) -> int:
        assert self.session is not None
        world = self.world
        now = self.now
        level = (self._random.choice(SKUS), self._random.choice(LOCATIONS))
        linearizable = self.winding_up or self._random.random() < 0.8
        number = self.session.query(
            calls.level(*level).encode(),
            now,
            now + world.timing.client_deadline_us,
            linearizable=linearizable,
        )
        self._calls[number] = _Asked(level, world.history.told_seq, linearizable)
        return number

    def _cancel(self, life: int, call: int) -> None:
        if life == self._life and self.session is not None and call in self._calls:
            del self._calls[call]
            self.session.detach(call)
            self._call_later()
            self.wake(self.world.now)

    def wind_up(self) -> None:
        """No more work but one last write and one last read, which must succeed."""
        self.winding_up = True
        if not self.alive:
            self.start()
        self._final = [self._submit(calls.receive({SKUS[0]: 1})), self._ask()]
        self.wake(self.world.now)

    @property
    def session_id(self) -> int:
        """0 while it has none."""
        return 0 if self.session is None else self.session.session

    @property
    def idle(self) -> bool:
        return not self._calls

    # --- turns --------------------------------------------------------------------------------

    def turn(self) -> None:
        session, world, now = self.session, self.world, self.now
        assert session is not None
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            session.receive(data, source, now)
        if now >= self._due:
            session.on_deadline(now)
        for target, data in session.flush(now):
            world.send(self.address, target, data)
        for address in session.probes():
            if world.nobody_at(address):
                world.after(400, self._refused, self._life, address)
        for completion in session.take_completions():
            self._on_completion(completion)
        self._due = session.deadline()
        self.wake(self.clock.when(self._due) + 20 + int(self._random.random() * 180))

    def _refused(self, life: int, address: tuple[str, int]) -> None:
        if life == self._life and self.session is not None:
            self.session.on_refused(address, self.now)
            self.wake(self.world.now)

    def _on_completion(self, completion: Completion) -> None:
        call = self._calls.pop(completion.call, None)
        command = self._commands.pop(completion.call, None)
        if call is None:
            raise SafetyViolation(f"{self.who}: call {completion.call} ended twice")
        if completion.call in self._final:
            self._final.remove(completion.call)
            if completion.error is not None:
                self.problems.append(f"{self.who}: the last call failed: {completion.error!r}")
            self.final_done = not self._final
        else:
            self._call_later()
        if completion.error is not None:
            if not isinstance(completion.error, (Unavailable, OutcomeUnknown)):
                raise SafetyViolation(f"{self.who}: {completion.error!r}")
            self.world.note(self.who, f"{type(completion.error).__name__}: {completion.error}")
            if isinstance(completion.error, Unavailable) and command is not None:
                self.world.history.on_unavailable(command.stream.session, command.number)
            return
        assert isinstance(completion.value, bytes)
        if isinstance(call, Pledge):
            history = self.world.history
            history.on_answer(call, completion.session, completion.number, completion.value)
            place = f"{completion.session:x}:{completion.number}"
            self.world.note(self.who, f"is answered {place}", text=False)
        else:
            self._on_answer(call, completion.value)

    def _on_answer(self, asked: _Asked, value: bytes) -> None:
        answer = queries.decode_answer(value)
        if isinstance(answer, queries.Failure):
            if answer.code not in ("unknown_item", "unknown_location"):
                raise SafetyViolation(f"{self.who}: a read failed with {answer.code}")
            return
        assert isinstance(answer, queries.Levels)
        floor = asked.floor if asked.linearizable else 0
        on_hand = answer.levels[0].on_hand
        self.world.history.on_read(self.who, asked.level, floor, answer.seq, on_hand)
