"""What happens in a scene of nodes, as lines: messages as they arrive, and what they change.

Only what can be seen from outside is compared before and after each step: the role, the promise,
whom a server follows, its log, what is committed, applied and answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import words
from attrs import Factory, define
from record import Record
from words import letter

from distinv.core.events import Standing
from distinv.core.node import Node
from distinv.entry import NO_BALLOT, Ballot, Entry, EntryKind, NodeId, Position
from distinv.wire.batch import LogCommand, SessionCommand, decode_batch

_FATES = {"taken": ("->", ""), "lost": ("-x", "   (lost)"), "held": ("..", "   (held)")}

_SAID_OTHERWISE = (
    "following ",
    "leading in ",
    "serving clients",
    "preparing term",
    "pulling entries",
    "dropped uncommitted",
    "handing leadership over",
)
"""What a server tells people and a line of the transcript tells as well."""


class Server(Protocol):
    """What can be seen of a server, of either kind of stage."""

    id: NodeId
    boot: int
    tells: list[str]
    not_appended: list[LogCommand]
    ready: dict[int, int]
    failed: list[int]

    @property
    def node(self) -> Node: ...
    @property
    def applied(self) -> int: ...
    @property
    def durable(self) -> list[Entry]: ...
    @property
    def durable_promise(self) -> Ballot: ...


class World(Protocol):
    """Where they are, and who wants to be told."""

    on_message: Callable[[str, NodeId, NodeId, Any], None]
    on_step: Callable[[Any], None]

    @property
    def servers(self) -> Mapping[NodeId, Any]: ...


@define
class _Seen:
    """What was last told of a server."""

    standing: Standing = Standing.FOLLOWER
    promised: Ballot = NO_BALLOT
    leader: NodeId | None = None
    serving: bool = False
    log: list[Position] = Factory(list)
    disk: tuple[Ballot, int] = (NO_BALLOT, 0)
    commit: int = 0
    applied: int = 0
    tells: int = 0
    given_back: int = 0
    ready: int = 0
    failed: int = 0


class Recorder:
    """Looks at a world, and writes down what changes."""

    def __init__(
        self,
        world: World,
        record: Record,
        election: str = "",
        describe: Callable[[bytes], str] = words.plain,
    ) -> None:
        self._record = record
        self._election = election
        self._describe = describe
        self._held: list[str] = []
        """Told after the step that sent them."""
        self.hidden = {"Heartbeat", "HeartbeatAck"}
        self.show_disk: set[NodeId] = set()
        """Whose syncs are told."""
        self.leaders: dict[Ballot, tuple[NodeId, int]] = {}
        """Who led in each ballot: the server, and which of its lives."""
        self.rivals: list[str] = []
        self._seen: dict[NodeId, _Seen] = {}
        world.on_message = self._on_message
        world.on_step = self.on_step
        for server in world.servers.values():
            self.forget(server)

    def forget(self, server: Server) -> None:
        """The server starts: what its disk holds is where it begins."""
        node = server.node
        log = self._log(server)
        self._seen[server.id] = _Seen(
            standing=node.standing,
            promised=node.promised,
            log=log,
            disk=(server.durable_promise, len(server.durable)),
            commit=node.commit,
            applied=server.applied,
            tells=len(server.tells),
            given_back=len(server.not_appended),
            ready=len(server.ready),
            failed=len(server.failed),
        )

    # --- messages -----------------------------------------------------------------------------

    def _on_message(self, fate: str, source: NodeId, to: NodeId, message: Any) -> None:
        if type(message).__name__ in self.hidden:
            return
        arrow, note = _FATES[fate]
        what = words.message(message, self._describe)
        text = f"{letter(source)} {arrow} {letter(to)}  {what}{note}"
        if fate == "held":
            self._held.append(text)
        else:
            self._record.say(text)

    # --- servers ------------------------------------------------------------------------------

    def on_step(self, server: Server) -> None:
        seen = self._seen[server.id]
        self._tell_words(server, seen)
        self._tell_disk(server, seen)
        self._tell_office(server, seen)
        self._tell_log(server, seen)
        self._tell_clients(server, seen)
        held, self._held = self._held, []
        for text in held:
            self._record.say(text)

    def _say(self, server: Server, text: str) -> None:
        self._record.say(f"{letter(server.id)}       {text}")

    def _tell_words(self, server: Server, seen: _Seen) -> None:
        for text in server.tells[seen.tells :]:
            if not text.startswith(_SAID_OTHERWISE):
                text = re.sub(r"election '\w+'", self._election, text)
                named = re.sub(r"\bs(\d+)\b", lambda found: letter(int(found[1])), text)
                self._say(server, f'says "{named}"')
        seen.tells = len(server.tells)

    def _tell_disk(self, server: Server, seen: _Seen) -> None:
        disk = (server.durable_promise, len(server.durable))
        if disk != seen.disk and server.id in self.show_disk:
            promise, last = disk
            self._say(server, f"has on disk: promised {words.ballot(promise)}, log to {last}")
        seen.disk = disk

    def _tell_office(self, server: Server, seen: _Seen) -> None:
        node = server.node
        quiet = node.standing is seen.standing and node.promised == seen.promised
        if node.standing is not seen.standing:
            self._say(server, f"{seen.standing.value} -> {node.standing.value}")
            seen.standing = node.standing
            if node.standing is Standing.LEADER:
                self.note_leader(server)
        if node.promised != seen.promised:
            own = node.promised.node == server.id
            verb = "takes the ballot" if own else "promises"
            self._say(server, f"{verb} {words.ballot(node.promised)}")
            seen.promised = node.promised
        if node.leader != seen.leader:
            if node.leader is not None and node.leader != server.id:
                ballot = words.ballot(node.leader_ballot)
                self._say(server, f"follows {letter(node.leader)} in {ballot}")
            elif node.leader is None and quiet:
                self._say(server, "follows nobody")
            seen.leader = node.leader

    def note_leader(self, server: Server) -> None:
        """It leads: nobody else may have, in this ballot, nor itself in another life."""
        ballot, life = server.node.leader_ballot, (server.id, server.boot)
        if self.leaders.setdefault(ballot, life) != life:
            self.rivals.append(words.ballot(ballot))

    def _tell_log(self, server: Server, seen: _Seen) -> None:
        node, log = server.node, self._log(server)
        common = 0
        while common < min(len(log), len(seen.log)) and log[common] == seen.log[common]:
            common += 1
        if dropped := seen.log[common:]:
            self._say(server, "drops " + ", ".join(map(words.position, dropped)))
        if len(log) > common:
            added = [node.log.body(at.index) for at in log[common:]]
            texts = words.entries([each for each in added if each is not None], self._describe)
            self._say(server, f"appends {texts}")
        seen.log = log
        if node.commit > seen.commit and node.standing is Standing.LEADER:
            self._say(server, f"commits {node.commit}")
        seen.commit = node.commit
        for entry in server.durable[seen.applied : server.applied]:
            self._say(server, f"applies {words.entry(entry, self._describe)}")
        seen.applied = server.applied
        if node.serving and not seen.serving:
            self._say(server, "serves")
        seen.serving = node.serving

    def _log(self, server: Server) -> list[Position]:
        log = server.node.log
        places = (log.position(index) for index in range(1, log.last_index + 1))
        return [place for place in places if place is not None]

    def _tell_clients(self, server: Server, seen: _Seen) -> None:
        for command in server.not_appended[seen.given_back :]:
            what = words.command(command, self._describe)
            self._say(server, f"does not take {what}")
        seen.given_back = len(server.not_appended)
        for ticket, index in [*server.ready.items()][seen.ready :]:
            self._say(server, f"may answer read {ticket} from entry {index} on")
        seen.ready = len(server.ready)
        for ticket in server.failed[seen.failed :]:
            self._say(server, f"refuses read {ticket}")
        seen.failed = len(server.failed)


def commands_of(entries: list[Entry]) -> list[str]:
    """The commands of a log, in their order, as they were given."""
    found: list[str] = []
    for entry in entries:
        if entry.kind == EntryKind.COMMANDS:
            batch = decode_batch(entry.payload)
            found.extend(
                each.command.decode() for each in batch if isinstance(each, SessionCommand)
            )
    return found
