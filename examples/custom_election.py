"""Three servers that elect their leader by a rule of your own: the lowest id that lives.

    python examples/custom_election.py [--json]

The election is a class of forty lines, and comes in as `plugins=[…]` of each `Cluster`; no
package and no entry point is needed (`lowest_load_election/` beside this file has both). The
same plugin brings an observer, which tells how far every server has come.

The servers run in this process, on loopback. While a client sells a hundred mugs one by one,
the leader's network cable is pulled and put back: the others elect a new leader, the client
goes on, and in the end the books of all three servers are the same. The last thing printed with
`--json` is one JSON object; the exit status is 0 when everything came out right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import anyio
from attrs import define, field

from distinv import Cluster, InventoryClient, InventoryStore, hookimpl
from distinv.config import FaultSettings
from distinv.election.api import ElectionAction, ElectionContext, ElectionFactory, Nominate
from distinv.entry import Ballot, NodeId
from distinv.plugins.observer import ObserverContext, ObserverFactory
from distinv.runtime.observers import LeaderChanged, Progress
from distinv.transport.faulty import Cuts, faulty
from distinv.transport.udp import open_udp

SERVERS = 3
MUGS = 100


class LowestId:
    """Every server nominates the same one without a word; if nothing comes of it, the next one.

    The methods are pure: the core hands in the time, and calls again at `deadline`.
    """

    def __init__(self, context: ElectionContext, tally: Tally) -> None:
        self._self_id = context.self_id
        self._random = context.random
        self._patience_us = 4 * context.timing.election_answer_us
        self._tally = tally
        self._voters: Sequence[NodeId] = ()
        self._suspected: NodeId | None = None
        self._turn = 0
        self._deadline: int | None = None

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        self._voters = voters
        if self._self_id not in voters:
            self._deadline = None
        return ()

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        self._suspected = leader
        return self._nominate(now) if self._deadline is None else ()

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        self._suspected = None
        self._turn = 0
        self._deadline = None
        return ()

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        return ()  # this election needs none

    def deadline(self) -> int | None:
        return self._deadline

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        due = self._deadline is not None and now >= self._deadline
        return self._nominate(now) if due else ()

    def _nominate(self, now: int) -> Iterable[ElectionAction]:
        candidates = [voter for voter in self._voters if voter != self._suspected]
        if self._self_id not in candidates:
            return ()
        nominee = candidates[self._turn % len(candidates)]
        self._turn += 1
        self._deadline = now + self._patience_us + self._random.randrange(self._patience_us)
        self._tally.nominations += 1
        return (Nominate(nominee),)


@define(eq=False)
class Tally:
    """What happened, over all servers of this process."""

    nominations: int = 0
    leaders: dict[NodeId, None] = field(factory=dict)
    """Whom a server has followed so far."""
    seqs: dict[str, int] = field(factory=dict)
    """How far each server has come, by its name."""
    changed: anyio.Event = field(factory=anyio.Event)

    async def wait_for_seq(self, seq: int) -> None:
        """Until every server has applied `seq`."""
        while len(self.seqs) < SERVERS or min(self.seqs.values()) < seq:
            self.changed = anyio.Event()
            await self.changed.wait()


@define
class Watcher:
    """Hears once per turn what happened in one server."""

    server_name: str
    tally: Tally

    def on_events(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Progress):
                self.tally.seqs[self.server_name] = event.seq
                self.tally.changed.set()
            elif isinstance(event, LeaderChanged) and event.leader is not None:
                self.tally.leaders[event.leader] = None


@define
class LowestIdPlugin:
    """What is given as `plugins=[…]`: named factories, one hook for each kind."""

    tally: Tally

    @hookimpl
    def distinv_elections(self) -> Mapping[str, ElectionFactory]:
        return {"lowest-id": lambda context: LowestId(context, self.tally)}

    @hookimpl
    def distinv_observers(self) -> Mapping[str, ObserverFactory]:
        def watcher(context: ObserverContext) -> Watcher:
            return Watcher(context.server_name, self.tally)

        return {"tally": watcher}


@define(eq=False)
class Server:
    """One server and its network cable."""

    cluster: Cluster
    cuts: Cuts

    @classmethod
    def make(cls, name: str, data_dir: Path, tally: Tally) -> Server:
        cuts = Cuts()
        cluster = Cluster(
            name,
            data_dir=data_dir,
            expect=SERVERS,
            election="lowest-id",
            plugins=[LowestIdPlugin(tally)],
            transport=faulty(open_udp, FaultSettings(), cuts),
        )
        return cls(cluster, cuts)

    async def run(self, leave: anyio.Event) -> None:
        async with self.cluster:
            await self.cluster.ready()
            await leave.wait()


async def sell(inventory: InventoryClient, count: int) -> int:
    """Sell so many mugs, one by one; returns the seq of the last sale."""
    seq = 0
    for _ in range(count):
        seq = (await inventory.ship({"MUG": 1}, reason="sold")).seq
    return seq


async def pull_a_cable(servers: Sequence[Server]) -> Server:
    """Cut the leader off from the other servers, in both directions."""
    while not (leading := [server for server in servers if server.cluster.is_leader]):
        await anyio.sleep(0.01)
    for other in servers:
        if other is not leading[0]:
            leading[0].cuts.cut(other.cluster.address)
    return leading[0]


async def play(directory: Path) -> dict[str, object]:
    tally, leave = Tally(), anyio.Event()
    name = f"custom-election-{secrets.token_hex(4)}"
    servers = [
        Server.make(name, directory / f"node-{number}", tally) for number in range(1, SERVERS + 1)
    ]
    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(server.run, leave)
        async with InventoryClient(name) as inventory:
            await inventory.put_item("MUG", name="A mug")
            await inventory.receive({"MUG": MUGS}, reference="PO-1")
            await sell(inventory, MUGS // 4)
            cut = await pull_a_cable(servers)
            await sell(inventory, MUGS // 4)
            cut.cuts.heal()
            seq = await sell(inventory, MUGS // 4)
            digest = await inventory.digest()
        await tally.wait_for_seq(seq)
        leave.set()
    return report(directory, tally, digest.value)


def report(directory: Path, tally: Tally, digest: str) -> dict[str, object]:
    """Compare the books that the stopped servers left with what they must be."""
    servers = []
    for number in range(1, SERVERS + 1):
        with InventoryStore(directory / f"node-{number}" / "store.sqlite3") as store:
            found = store.digest()
        servers.append({"name": f"node-{number}", "seq": found.seq, "digest": found.value})
    left = MUGS - 3 * (MUGS // 4)
    expected = hashlib.sha256(json.dumps([["MUG", left]]).encode()).hexdigest()[:16]
    equal = all(server["digest"] == digest == expected for server in servers)
    elected = tally.nominations > 0 and len(tally.leaders) > 1
    return {
        "verdict": "ok" if equal and elected else "failed",
        "digest": digest,
        "servers": servers,
        "nominations": tally.nominations,
        "leaders": len(tally.leaders),
        "sold": MUGS - left,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Three servers with an election of their own.")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = anyio.run(play, Path(directory))
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"sold {found['sold']} mugs under {found['leaders']} leaders,", end=" ")
        print(f"after {found['nominations']} nominations: {found['verdict']}")
    return 0 if found["verdict"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
