"""The invariants of docs/protocol.md, checked from outside the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from scene_log import CLUSTER_ID

from distinv.core.leader import Leader
from distinv.entry import Ballot, Entry, EntryKind, NodeId, VoterSet, decode_voters
from distinv.storage.api import EntryRecord, Record
from distinv.wire.messages import AppendAck, HeartbeatAck, Prepare, Promise

if TYPE_CHECKING:
    from scene_server import Server


class Witness:
    """The invariants of docs/protocol.md, looked at from outside."""

    def __init__(self) -> None:
        self._histories: dict[int, list[Entry]] = {}
        self.leaders: dict[Ballot, tuple[NodeId, int]] = {}
        self._prepared: dict[Ballot, tuple[NodeId, int]] = {}
        self._promises: dict[tuple[NodeId, Ballot], Promise] = {}
        self._led: dict[Ballot, list[bytes]] = {}
        """The log of each leadership, as hashes from index 1 on."""
        self._ever_durable: dict[NodeId, set[bytes]] = {}
        self._accepted: dict[int, set[NodeId]] = {}
        """By cluster id: who has ever held its proposal durably accepted."""
        self.born: dict[int, VoterSet] = {}

    def history(self, cluster_id: int = CLUSTER_ID) -> list[Entry]:
        """What was applied anywhere in a cluster, in order."""
        return self._histories.setdefault(cluster_id, [])

    def on_written(self, server: Server, records: Iterable[Record]) -> None:
        """A write is durable as a whole, also what it drops again itself."""
        hashes = self._ever_durable.setdefault(server.id, set())
        hashes.update(each.entry.hash for each in records if isinstance(each, EntryRecord))

    def on_installed(self, server: Server, history: list[Entry]) -> None:
        """Its store holds all this durably, whatever its log held."""
        hashes = self._ever_durable.setdefault(server.id, set())
        hashes.update(entry.hash for entry in history)

    def on_durable(self, server: Server) -> None:
        hashes = self._ever_durable.setdefault(server.id, set())
        hashes.update(entry.hash for entry in server.durable)
        accepted = server.storage._durable.birth.accepted
        if accepted is not None:
            self._accepted.setdefault(accepted.cluster_id, set()).add(server.id)

    def on_born(self, server: Server) -> None:
        voters = server.node.membership.current()
        assert voters is not None
        if voters.cluster_id == CLUSTER_ID:
            return  # existed before the scene began
        self.born[voters.cluster_id] = voters
        holders = self._accepted.get(voters.cluster_id, set())
        count = sum(voter in holders for voter in voters.ids)
        assert 2 * count > len(voters.ids), "birth: a majority has not accepted durably"
        for other in self.born:
            if other != voters.cluster_id:
                assert not holders & self._accepted[other], "birth: two clusters share a server"

    def on_send(self, server: Server, message: Any) -> None:
        if isinstance(message, Prepare):
            first = self._prepared.setdefault(message.ballot, (server.id, server.boot))
            assert first == (server.id, server.boot), "1: a ballot is prepared by one life only"
            assert message.ballot.node == server.id, "1: a node prepares only for itself"
            assert server.durable_promise >= message.ballot, "1: the ballot is durable first"
        elif isinstance(message, Promise):
            first_promise = self._promises.setdefault((server.id, message.ballot), message)
            assert first_promise == message, "2: repeated answers are identical"
            assert server.durable_promise >= message.ballot, "2: a promise is durable first"
            if message.last.index:
                hashes = self._ever_durable[server.id]
                assert message.last.hash in hashes, "2: the log it reports is durable"
        elif isinstance(message, (AppendAck, HeartbeatAck)):
            assert server.durable_promise >= message.ballot, "2: who acknowledges has promised"
            if message.verified:
                digest = self._led[message.ballot][message.verified - 1]
                assert digest in self._ever_durable[server.id], "6: acknowledged is durable"

    def on_step(self, server: Server) -> None:
        node = server.node
        if not isinstance(node.role, Leader):
            return
        ballot = node.role.ballot
        new = ballot not in self.leaders
        first = self.leaders.setdefault(ballot, (server.id, server.boot))
        assert first == (server.id, server.boot), f"1: two leaders in {ballot}"
        led = self._led.setdefault(ballot, [])
        for index in range(len(led) + 1, node.log.last_index + 1):
            position = node.log.position(index)
            if position is None:  # only the store has it
                led.append(self.history(server.cluster_id)[index - 1].hash)
            else:
                led.append(position.hash)
        committed = self.history(server.cluster_id)
        if new and all(entry.ballot < ballot for entry in committed):
            held = led[: len(committed)]
            assert held == [entry.hash for entry in committed], "10: a leader has it all"

    def on_commit(self, server: Server, before: int, index: int) -> None:
        """A leader counts `index` as committed: do the disks of a majority of each set agree?

        In play are the last voter set that was committed before, and every one after it.
        """
        log = server.node.log
        position = log.position(index)
        assert position is not None
        base = server.storage._durable.base
        sets: list[VoterSet] = [] if base is None else [base.voters]
        for at in range(1, log.last_index + 1):
            entry = log.body(at)
            assert entry is not None or (base is not None and at <= base.position.index), (
                f"entry {at} is not in memory: who votes cannot be told"
            )
            if entry is not None and entry.kind == EntryKind.VOTERS:
                sets = [*(sets if at > before else ()), decode_voters(entry.payload)]
        for voters in sets:
            holders = [
                voter
                for voter in voters.ids
                if voter in server.scene.servers
                and self._holds(server.scene.servers[voter], index, position.hash)
            ]
            assert 2 * len(holders) > len(voters.ids), "4, 5: committed, but not on enough disks"

    def _holds(self, server: Server, index: int, digest: bytes) -> bool:
        return server.holds_durably(index, digest)

    def on_applied(self, server: Server, entry: Entry) -> None:
        assert server.holds_durably(entry.index, entry.hash), "7: applied is durable here"
        committed = self.history(server.cluster_id)
        if entry.index > len(committed):
            assert entry.index == len(committed) + 1, "9: applied out of order"
            committed.append(entry)
        assert committed[entry.index - 1].hash == entry.hash, "9: two committed logs"
