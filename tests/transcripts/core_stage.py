"""The commands of a scene of nodes: the protocol alone, on the core's own `Node`s.

Nothing happens by itself: messages arrive and disks sync while time passes (`tick`, `run`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import words
from record import PATIENCE_MS, Record, settle
from recorder import Recorder, commands_of
from scene import Held, Scene, Server, voter_set
from script import ScriptError, duration_ms, duration_us, expect
from words import letter, node_of

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.leader import Leader
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import NO_BALLOT, Ballot, Entry, NodeId, encode_voters
from distinv.testing.simulator.hostile import AlwaysMe, Silent
from distinv.wire.batch import SessionCommand

MS = 1_000
_ELECTIONS: dict[str, ElectionFactory] = {
    "bully": Bully,
    "ring": Ring,
    "always-me": AlwaysMe,
    "silent": Silent,
}


class CoreStage:
    """A cluster of servers a, b, c, … with an election that keeps silent unless told otherwise."""

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self.record = Record(lambda: self._scene.now if self._scene is not None else 0)
        self._recorder: Recorder | None = None
        self._held: list[list[Held]] = []
        self._election = ""
        self._numbers = 0
        self._tickets = 0

    @property
    def scene(self) -> Scene:
        if self._scene is None:
            raise ScriptError("a scene begins with 'servers'")
        return self._scene

    @property
    def recorder(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder

    def _server(self, name: str, *, alive: bool = True) -> Server:
        server = self.scene.servers.get(node_of(name))
        if server is None:
            raise ValueError(f"there is no server {name}")
        if alive and not server.alive:
            raise ValueError(f"{name} is down")
        return server

    def _living(self) -> list[Server]:
        return [server for server in self.scene.servers.values() if server.alive]

    # --- the stage ----------------------------------------------------------------------------

    def do_servers(self, count: str, *settings: str) -> None:
        """`election=NAME`, `disk=TIME`, `network=TIME`, `seed=N`, `learners=N` (further servers
        that have nothing yet), any of `Limits`, and any of `Timing` without its unit."""
        if self._scene is not None:
            raise ScriptError("the servers are there already")
        election, disk_us, network_us, seed = "silent", 100, 100, 0
        learners = 0
        limits: dict[str, int] = {}
        timing: dict[str, int] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name == "election" and value in _ELECTIONS:
                election = self._election = value
            elif name == "disk":
                disk_us = duration_us(value)
            elif name == "network":
                network_us = duration_us(value)
            elif name == "seed":
                seed = int(value)
            elif name == "learners":
                learners = int(value)
            elif name in attrs.fields_dict(Limits):
                limits[name] = int(value)
            elif f"{name}_us" in attrs.fields_dict(Timing):
                timing[f"{name}_us"] = duration_us(value)
            else:
                raise ValueError(f"{setting!r} cannot be set")
        self._scene = scene = Scene(
            int(count),
            learners=learners,
            seed=seed,
            election=_ELECTIONS[election],
            limits=Limits(**limits),
            timing=Timing(**timing),
            latency_us=network_us,
            sync_us=disk_us,
        )
        self._recorder = Recorder(scene, self.record, self._election)

    def do_show(self, *kinds: str) -> None:
        """Tell of messages that are hidden, or of the `disk`s."""
        for kind in kinds:
            if kind == "disk":
                self.recorder.show_disk.update(self.scene.servers)
            self.recorder.hidden.discard(kind)

    def do_hide(self, *kinds: str) -> None:
        for kind in kinds:
            if kind == "disk":
                self.recorder.show_disk.clear()
            self.recorder.hidden.add(kind)

    # --- time ---------------------------------------------------------------------------------

    def do_tick(self, time: str) -> None:
        self.scene.run(duration_ms(time))

    def do_run(self, until: str, who: str, what: str = "") -> None:
        """`run until quiet`, `run until b serves`, `run until somebody serves`."""
        if until != "until":
            raise ValueError("run until what?")
        if who == "quiet":
            settle(self.record, self.scene.run)
            return
        servers = [*self.scene.servers.values()] if who == "somebody" else [self._server(who)]
        asks = _STANDINGS.get(what)
        if asks is None:
            raise ValueError(f"until {who} {what}? there are {', '.join(_STANDINGS)}")
        came = self.scene.run(PATIENCE_MS, lambda: any(map(asks, servers)))
        assert came, f"not within {PATIENCE_MS} ms"

    # --- servers ------------------------------------------------------------------------------

    def do_elect(self, name: str) -> None:
        """Order a campaign, as a leader does that hands over; until all is quiet."""
        server = self._server(name)
        self._campaign(server, "by order", server.node.leader_ballot)
        assert self.scene.run(PATIENCE_MS, lambda: server.serves), f"{name} does not serve"
        settle(self.record, self.scene.run)

    def do_nominate(self, name: str) -> None:
        """An election says that this server should lead: it campaigns, beginning by pre-vote."""
        server = self._server(name)
        if not server.node.may_campaign():
            raise ValueError(f"{name} may not campaign: it hears a leader, or backs off")
        self._campaign(server, "it was nominated", NO_BALLOT)

    def _campaign(self, server: Server, why: str, ordered_by: Ballot) -> None:
        server.turn()  # so that the node knows what time it is
        server.node.become_candidate(why, ordered_by)
        server.turn()

    def do_suspect(self, name: str) -> None:
        """The kernel tells the server that its leader's process is gone."""
        server = self._server(name)
        leader = server.node.leader
        if leader is None or leader == server.id:
            raise ValueError(f"{name} follows nobody")
        server.turn(events.PeerRefused(leader))
        self.scene.run(0)

    def do_transfer(self, source: str, arrow: str, target: str) -> None:
        expect(arrow == "->", "transfer a -> b")
        self._server(source).turn(events.Transfer(node_of(target)))

    def do_order(self, name: str, what: str, server: str) -> None:
        """`order a promote d`, `order a remove b`: somebody wants it to have a vote, or none."""
        if what not in ("promote", "remove"):
            raise ValueError(f"order {name} to {what}?")
        self._tickets += 1
        votes = what == "promote"
        self._server(name).turn(events.Order(self._tickets, node_of(server), votes))

    def do_propose(self, name: str, *voters: str) -> None:
        """The leader appends this voter set now, whatever it thinks of it."""
        server = self._server(name)
        role = server.node.role
        expect(isinstance(role, Leader), f"{name} does not lead")
        assert isinstance(role, Leader)
        role.append_voters(encode_voters(voter_set(map(node_of, voters))))
        server.turn()

    def do_crash(self, name: str) -> None:
        """Power off: what is not on disk is lost."""
        self._server(name).crash()
        self.record.say(f"{name}       is gone")

    def do_restart(self, name: str) -> None:
        server = self._server(name, alive=False)
        with self.record.silence():
            server.restart()
        self.recorder.forget(server)
        last = words.position(server.node.log.last)
        promised = words.ballot(server.node.promised)
        self.record.say(f"{name}       starts with promised {promised}, log to {last}")

    def do_sleep(self, name: str, time: str) -> None:
        """The process stands still; what arrives meanwhile waits for it."""
        server, time_ms = self._server(name), duration_ms(time)
        server.batch_us = server.late_us = time_ms * MS
        server.deliver(events.EndTurn())
        self.scene.run(time_ms)
        server.batch_us = server.late_us = 0

    def do_stall(self, name: str) -> None:
        """From now on its disk ends a write only at `sync`."""
        self._server(name).stalled = True
        self.recorder.show_disk.add(self._server(name).id)

    def do_sync(self, name: str) -> None:
        self._server(name).sync()

    def do_unstall(self, name: str) -> None:
        self._server(name).stalled = False
        self._server(name).sync()
        self.recorder.show_disk.discard(self._server(name).id)

    # --- clients ------------------------------------------------------------------------------

    def do_submit(self, name: str, *commands: str) -> None:
        batch = []
        for command in commands:
            self._numbers += 1
            batch.append(SessionCommand(1, self._numbers, 0, command.encode()))
        self._server(name).turn(*map(events.Submit, batch))

    def do_read(self, name: str) -> None:
        self._tickets += 1
        self.record.say(f"{name}       is asked read {self._tickets}")
        self._server(name).read(self._tickets)

    # --- network ------------------------------------------------------------------------------

    def do_cut(self, source: str, arrow: str, target: str) -> None:
        one, other = self._server(source, alive=False).id, self._server(target, alive=False).id
        expect(arrow in ("->", "<->"), "cut a -> b, or cut a <-> b")
        self.scene.cut((one, other))
        if arrow == "<->":
            self.scene.cut((other, one))

    def do_isolate(self, name: str) -> None:
        self.scene.isolate(self._server(name, alive=False).id)

    def do_heal(self) -> None:
        self.scene.heal()

    def do_hold(
        self, source: str, arrow: str, target: str, kind: str, count: str = "1000000"
    ) -> None:
        """The next messages of this kind wait for `deliver` or `drop`; `any` is anybody."""
        expect(arrow == "->", "hold a -> b Append")

        left = int(count)

        def which(one: NodeId, other: NodeId, message: Any) -> bool:
            nonlocal left
            fits = source in ("any", letter(one)) and target in ("any", letter(other))
            picked = fits and type(message).__name__ == kind and left > 0
            left -= picked
            return picked

        self._held.append(self.scene.hold_between(which))

    def do_deliver(self, source: str, arrow: str, target: str) -> None:
        """The oldest message that is held between these two arrives."""
        self.scene.pass_on(self._take_held(source, target))

    def do_drop(self, source: str, arrow: str, target: str) -> None:
        held = self._take_held(source, target)
        self.record.say(f"{source} -x {target}  {words.message(held.message)}   (lost)")

    def _take_held(self, source: str, target: str) -> Held:
        for held in self._held:
            for each in held:
                if (letter(each.source.id), letter(each.target.id)) == (source, target):
                    held.remove(each)
                    return each
        raise ValueError(f"nothing is held between {source} and {target}")

    def do_forget(self) -> None:
        """What is held is lost, and nothing is held any more."""
        for held in self._held:
            held.clear()
        self.do_release()

    def do_release(self) -> None:
        """What is held arrives, and nothing is held any more."""
        for held in self._held:
            self.scene.release(held)
        self._held.clear()

    # --- looking ------------------------------------------------------------------------------

    def do_state(self) -> None:
        for server in self.scene.servers.values():
            self.record.say(_state_of(server))

    def do_voters(self) -> None:
        """Whose votes count, as each server's log says: a majority of each set is needed."""
        for server in self._living():
            sets = [" ".join(map(letter, each)) for each in server.node.sets()]
            self.record.say(f"{letter(server.id)}  " + (" and ".join(sets) or "nobody's"))

    def do_logs(self, first: str = "1") -> None:
        """The logs, from an index on."""
        for server in self.scene.servers.values():
            entries = _whole_log(server)[int(first) - 1 :]
            texts = [words.entry(entry, words.plain) for entry in entries]
            self.record.say(f"{letter(server.id)}  " + (" · ".join(texts) or "nothing"))

    # --- checks -------------------------------------------------------------------------------

    def check_prefix(self) -> None:
        """What any two servers have applied is the same as far as both have it."""
        logs = [server.durable[: server.applied] for server in self.scene.servers.values()]
        longest = max(logs, key=len)
        for server, log in zip(self.scene.servers.values(), logs):
            same = [each.hash for each in log] == [each.hash for each in longest[: len(log)]]
            assert same, f"{letter(server.id)} has applied another log"

    def check_one_leader_per_ballot(self) -> None:
        assert not self.recorder.rivals, f"two leaders in {', '.join(self.recorder.rivals)}"

    def check_committed(self, *commands: str) -> None:
        """Exactly these commands are committed, in this order."""
        found = commands_of(self.scene.committed)
        assert found == list(commands), f"committed are {found}"

    def check_caught_up(self) -> None:
        ends = {server.applied for server in self._living()}
        assert len(ends) == 1, f"servers have applied up to {sorted(ends)}"

    def check_voters(self, *names: str) -> None:
        """Everybody who lives knows this set, and no other is in play."""
        for server in self._living():
            found = [" ".join(map(letter, each)) for each in server.node.sets()]
            assert found == [" ".join(names)], f"{letter(server.id)}: {' and '.join(found)}"

    def check_leader(self, name: str) -> None:
        leader = self.scene.leader
        found = letter(leader.id) if leader is not None else "nobody"
        assert found == name, f"{found} serves"

    def check_leaders(self, count: str) -> None:
        """So many leaderships there have been."""
        found = len(self.recorder.leaders)
        assert found == int(count), f"{found} leaderships"

    def check_unanswered(self, ticket: str) -> None:
        answered = any(int(ticket) in server.ready for server in self.scene.servers.values())
        assert not answered, f"read {ticket} was answered"

    def check_answered(self, ticket: str) -> None:
        answered = any(int(ticket) in server.ready for server in self.scene.servers.values())
        assert answered, f"read {ticket} was not answered"


_STANDINGS: dict[str, Callable[[Server], bool]] = {
    "serves": lambda server: server.serves,
    "leads": lambda server: server.leads,
    "campaigns": lambda server: server.campaigns,
    "has-the-log": lambda server: bool(server.applied),
    "steps-down": lambda server: not server.leads,
}


def _state_of(server: Server) -> str:
    name, node = letter(server.id), server.node
    if not server.alive:
        last = words.position(server.durable[-1].position)
        return (
            f"{name}  down       on disk: promised {words.ballot(server.durable_promise)}, {last}"
        )
    standing = "serves" if server.serves else node.standing.value
    return (
        f"{name}  {standing:<9}  promised {words.ballot(node.promised):<4}"
        f"  log {words.position(node.log.last):<6}  durable {node.durability.durable_index}"
        f"  commit {node.commit}  applied {server.applied}"
    )


def _whole_log(server: Server) -> list[Entry]:
    if not server.alive:
        return server.durable
    log = server.node.log
    bodies = (log.body(index) for index in range(1, log.last_index + 1))
    return [body for body in bodies if body is not None]
