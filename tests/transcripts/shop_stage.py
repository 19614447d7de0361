"""The commands of a scene of whole servers and a till that sells.

Told are the messages between the till and the servers, and what becomes of the log. What servers
say to one another is hidden: other scenes are about that.
"""

from __future__ import annotations

from typing import get_args

import words
from record import PATIENCE_MS, Record, settle
from recorder import Recorder
from script import ScriptError, duration_ms, expect
from shop import Shop, ShopServer
from words import letter, node_of

from distinv.client.calls import Completion
from distinv.election.bully import Bully
from distinv.entry import EntryKind
from distinv.inventory import calls, queries
from distinv.inventory.calls import Call
from distinv.inventory.commands import (
    Accepted,
    PutItem,
    Receive,
    Refused,
    Ship,
    decode_command_untrusted,
    decode_outcome,
)
from distinv.wire import messages
from distinv.wire.batch import SessionCommand, decode_batch

_TOLD = {"OpenSession", "SessionOpened", "Request", "Reply", "NotTaken", "Answer", "QueryFailed"}
_HIDDEN = {kind.__name__ for kind in get_args(messages.Message)} - _TOLD


class ShopStage:
    """Servers a, b, c, … with the election bully, and the client `till`."""

    def __init__(self) -> None:
        self._shop: Shop | None = None
        self._recorder: Recorder | None = None
        self.record = Record(lambda: self._shop.timeline.now if self._shop is not None else 0)
        self._calls: dict[int, str] = {}
        self._open = 0
        self._notes: list[str] = []

    @property
    def shop(self) -> Shop:
        if self._shop is None:
            raise ScriptError("a scene begins with 'shop'")
        return self._shop

    @property
    def recorder(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder

    def _server(self, name: str, *, alive: bool = True) -> ShopServer:
        server = self.shop.servers.get(node_of(name))
        if server is None:
            raise ValueError(f"there is no server {name}")
        if alive and not server.alive:
            raise ValueError(f"{name} is down")
        return server

    def do_shop(self, count: str) -> None:
        if self._shop is not None:
            raise ScriptError("the shop is there already")
        self._shop = shop = Shop(int(count), Bully, "bully")
        self._recorder = Recorder(shop, self.record, "bully", describe)
        self._recorder.hidden = set(_HIDDEN)
        shop.on_completion = self._on_completion
        shop.on_number = self._on_number
        shop.tell_numbers = self._tell_numbers

    def do_show(self, *kinds: str) -> None:
        self.recorder.hidden.difference_update(kinds)

    def do_hide(self, *kinds: str) -> None:
        self.recorder.hidden.update(kinds)

    # --- time ---------------------------------------------------------------------------------

    def do_tick(self, time: str) -> None:
        self.shop.run(duration_ms(time))

    def do_run(self, until: str, who: str, what: str = "") -> None:
        """`run until quiet`, `run until b serves`, `run until till answered`."""
        expect(until == "until", "run until what?")
        if who == "quiet":
            settle(self.record, self.shop.run)
            return
        if (who, what) == ("till", "answered"):
            came = self.shop.run(PATIENCE_MS, lambda: not self._calls)
        else:
            servers = [*self.shop.servers.values()] if who == "somebody" else [self._server(who)]
            expect(what == "serves", "run until somebody serves")
            came = self.shop.run(PATIENCE_MS, lambda: any(server.serves for server in servers))
        assert came, f"not within {PATIENCE_MS} ms"

    # --- the till -----------------------------------------------------------------------------

    def do_put(self, sku: str) -> None:
        self._call(f"put {sku}", calls.put_item(sku))

    def do_receive(self, sku: str, quantity: str) -> None:
        self._call(f"receive {sku} {quantity}", calls.receive({sku: int(quantity)}))

    def do_ship(self, sku: str, quantity: str) -> None:
        self._call(f"ship {sku} {quantity}", calls.ship({sku: int(quantity)}))

    def _call(self, text: str, call: Call[object]) -> None:
        session, now = self.shop.till.session, self.shop.timeline.now
        self._calls[session.submit(call.encode(), now, now + PATIENCE_MS * 1_000)] = text
        self.shop.till.turn()

    def _on_completion(self, completion: Completion) -> None:
        text = self._calls.pop(completion.call)
        if completion.error is not None:
            self.record.say(f"till    {text}: {type(completion.error).__name__}")
            return
        assert isinstance(completion.value, bytes)
        outcome = decode_outcome(completion.value)
        if isinstance(outcome, Accepted):
            self.record.say(f"till    {text}: done, the inventory's command {outcome.seq}")
        else:
            code = outcome.code if isinstance(outcome, Refused) else type(outcome).__name__
            self.record.say(f"till    {text}: refused, {code}")

    # --- servers and network ------------------------------------------------------------------

    def do_crash(self, name: str) -> None:
        self._server(name).crash()
        self.record.say(f"{name}       is gone")

    def do_restart(self, name: str) -> None:
        server = self._server(name, alive=False)
        expect(not server.alive, f"{name} runs")
        server.start()
        self.recorder.forget(server)
        self.record.say(f"{name}       starts, log to {words.position(server.node.log.last)}")

    def do_transfer(self, source: str, arrow: str, target: str) -> None:
        expect(arrow == "->", "transfer a -> b")
        server = self._server(source)
        server.engine.transfer(node_of(target), self.shop.timeline.now)
        server.turn()

    def do_cut(self, source: str, arrow: str, target: str) -> None:
        one, other = node_of(source), node_of(target)
        expect(arrow in ("->", "<->"), "cut a -> b, or cut a <-> b")
        self.shop.cuts.add((one, other))
        if arrow == "<->":
            self.shop.cuts.add((other, one))

    def do_heal(self) -> None:
        self.shop.cuts.clear()

    def do_smuggle(self, name: str, number: str) -> None:
        """A copy of that number, as it is in this leader's log, is appended once more."""
        server = self._server(name)
        expect(server.serves, f"{name} does not serve")
        for entry in server.durable:
            batch = decode_batch(entry.payload) if entry.kind == EntryKind.COMMANDS else ()
            for command in batch:
                if isinstance(command, SessionCommand) and command.number == int(number):
                    server.submit(command)
                    return
        raise ValueError(f"the log of {name} holds no number {number}")

    # --- looking ------------------------------------------------------------------------------

    def do_logs(self, first: str = "1") -> None:
        """What their disks hold, from an index on."""
        for server in self.shop.servers.values():
            entries = server.durable[int(first) - 1 :]
            texts = [words.entry(entry, describe) for entry in entries]
            self.record.say(f"{letter(server.id)}  " + (" · ".join(texts) or "nothing"))

    def do_stock(self, sku: str) -> None:
        """What every server that lives has, by its own store."""
        for name, on_hand in self._stock(sku).items():
            self.record.say(f"{name}       has {on_hand} {sku}")

    def _stock(self, sku: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for server in self._living():
            answer = queries.decode_answer(server.machine.query(calls.level(sku).encode()))
            assert isinstance(answer, queries.Levels), answer
            found[letter(server.id)] = answer.levels[0].on_hand
        return found

    def _living(self) -> list[ShopServer]:
        return [server for server in self.shop.servers.values() if server.alive]

    def _on_number(self, server: ShopServer, command: SessionCommand, new: bool) -> None:
        effect = "has its effect" if new else "again: no effect, its result stands"
        self._notes.append(f"{letter(server.id)}       number {command.number} {effect}")

    def _tell_numbers(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self.record.say(note)

    # --- checks -------------------------------------------------------------------------------

    def check_stock(self, sku: str, on_hand: str) -> None:
        found = self._stock(sku)
        assert set(found.values()) == {int(on_hand)}, f"on hand are {found}"

    def check_answered(self) -> None:
        assert not self._calls, f"not answered: {', '.join(self._calls.values())}"

    def check_prefix(self) -> None:
        """What any two servers have applied is the same as far as both have it."""
        logs = {letter(each.id): each.durable[: each.applied] for each in self._living()}
        longest = max(logs.values(), key=len)
        for name, log in logs.items():
            same = [each.hash for each in log] == [each.hash for each in longest[: len(log)]]
            assert same, f"{name} has applied another log"

    def check_one_leader_per_ballot(self) -> None:
        assert not self.recorder.rivals, f"two leaders in {', '.join(self.recorder.rivals)}"

    def check_effects_once(self) -> None:
        """No number of a session took effect twice, and each that did is one of the inventory's."""
        for server in self._living():
            twice = [number for (_, number), count in server.effects.items() if count > 1]
            assert not twice, f"{letter(server.id)}: numbers {twice} took effect twice"
            counted = server.machine.seq
            assert counted == len(server.effects), f"{letter(server.id)} counts {counted} commands"


def describe(command: bytes) -> str:
    """An inventory command in a few words."""
    operations = decode_command_untrusted(command).operations
    return " and ".join(_operation(each) for each in operations)


def _operation(operation: object) -> str:
    if isinstance(operation, PutItem):
        return f"put {operation.sku}"
    if isinstance(operation, Receive | Ship):
        verb = type(operation).__name__.lower()
        return f"{verb} " + ", ".join(f"{line.sku} {line.quantity}" for line in operation.lines)
    return type(operation).__name__
