"""Targets: everything that a server can be sent, through its whole inbox.

The *outsider* has no key (or the cluster has none, and then its checksums are right): it sends
datagrams that it saw, spoilt. The *insider* has the key and has proved to be there: what it sends
is rightly framed, sealed and fresh, and what is inside is not what a server or client would send.
"""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace

from distinv.core.events import Effect, Event, InvariantBroken
from distinv.core.node import Node
from distinv.entry import ORIGIN, TERM_JUMP_MAX, Ballot, NodeId, Voter, VoterSet, encode_voters
from distinv.errors import UpgradeNeeded
from distinv.inventory import calls
from distinv.testing.fuzzing import bounds
from distinv.testing.fuzzing.copies import made_up_copy
from distinv.testing.fuzzing.corpus import Corpus, captured
from distinv.testing.fuzzing.making import KINDS, Maker, Pool
from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.scene import Client, Intruder, Net, Server, born
from distinv.testing.fuzzing.target import Target
from distinv.wire.codec import encode
from distinv.wire.frame import (
    HEADER_BYTES,
    Header,
    encode_ack,
    encode_announce,
    encode_data,
    encode_header,
    encode_unordered,
    parse_header_untrusted,
)
from distinv.wire.messages import (
    Behind,
    Dismissed,
    EndSession,
    HeartbeatAck,
    Join,
    MulticastBody,
    OpenSession,
    Order,
    Ping,
    Query,
    QueryFailed,
    Request,
    SnapshotPart,
    SnapshotPull,
    StatusRequest,
)

TURN_EVERY = 16
"""Datagrams taken in before the victim's turn ends."""
_PAUSES_US = (200, 200, 500, 500, 1_000, 5_000, 60_000)
_LONG_PAUSE_US = 900_000
"""Long enough for suspicions, elections and time-outs."""
_PROGRESS_US = 40_000_000
_BODY_BYTES_MAX = 60_000


def _watch_term(node: Node) -> None:
    """From now on no single step may raise the promised term by more than the bound."""
    step = node.step
    if "step" in vars(node):
        return

    def watched(event: Event, now: int) -> list[Effect]:
        before = node.promised.term
        effects = step(event, now)
        assert node.promised.term - before <= TERM_JUMP_MAX, "a term out of the blue"
        return effects

    vars(node)["step"] = watched


class Siege:
    """What both kinds of attack on a server share: the cluster, the victim, the demands."""

    net: Net
    victim: Server

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"siege {seed}")
        self._pauses = Random(f"pauses {seed}")
        self._fed = 0
        self._probes = 0

    def take(self, datagram: bytes, address: tuple[str, int]) -> str:
        """Let the victim receive it, and look at what it did."""
        engine = self.victim.engine
        dropped, node = sum(engine.endpoint.dropped.values()), engine.node
        _watch_term(node)
        engine.receive(datagram, address, self.net.now)
        node.check()
        self._fed += 1
        if self._fed % TURN_EVERY == 0:
            bounds.check(Siege.sizes(self), bounds.engine_bounds(self.net.config.limits))
            self.victim.wake(self.net.now)
            long = self._pauses.random() < 0.01
            self.net.run(_LONG_PAUSE_US if long else self._pauses.choice(_PAUSES_US))
        return "dropped" if sum(engine.endpoint.dropped.values()) > dropped else "taken"

    def works(self) -> bool:
        """A client that comes now writes, and reads what it wrote."""
        self._probes += 1
        net = self.net
        client = Client(net, self._probes)
        sku, count = f"probe-{self._probes}-{self._fed}", 1 + self._probes % 9
        call = calls.execute([calls.put_item(sku), calls.receive({sku: count})])
        deadline = net.now + _PROGRESS_US
        client.session.submit(call.encode(), net.now, deadline)
        client.wake(net.now)
        if not net.run(_PROGRESS_US, lambda: bool(client.ended)) or client.ended[0].error:
            client.leave()
            return False
        call.value(self._bytes(client.ended.pop().value))
        ask = calls.level(sku)
        client.session.query(ask.encode(), net.now, deadline)
        client.wake(net.now)
        done = net.run(_PROGRESS_US, lambda: bool(client.ended))
        client.leave()
        if not done or client.ended[0].error:
            return False
        level = ask.value(self._bytes(client.ended[0].value))
        assert level.on_hand == count, f"wrote {count}, read {level.on_hand}"
        return True

    def _bytes(self, value: Any) -> bytes:
        assert isinstance(value, bytes)
        return value

    def check(self) -> None:
        engine = self.victim.engine
        engine.endpoint.check()
        engine.front.forget_silent(0)
        bounds.check(self.sizes(), bounds.engine_bounds(self.net.config.limits))

    def sizes(self) -> dict[str, int]:
        kept = len(self.victim.depot._data)
        return {**bounds.engine_sizes(self.victim.engine), "snapshot bytes": kept}


# --- without the key ----------------------------------------------------------------------------


class Outsider(Siege):
    """Spoilt copies of real datagrams, headers made up, noise; sealed clusters and open ones."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sealed = seed % 2 == 0
        self.net = Net(seed, sealed=self.sealed)
        self.net.recorded = []
        self.servers = born(self.net, 3, ("bully", "ring")[seed // 2 % 2])
        serving = [each for each in self.servers if each.engine.node.serving]
        following = [each for each in self.servers if not each.engine.node.serving]
        self.victim = (serving if seed % 3 else following)[0]
        assert self.works()
        self._corpus = self._mine(self.net.recorded)
        self.net.recorded = None
        self._mutator = Mutator(self.random, self._corpus)
        self._seal = self.net.seal()

    def _mine(self, datagrams: list[bytes]) -> list[bytes]:
        """Those for the victim, and those for anybody: the latest of each length."""
        boots = (0, self.victim.boot)
        kept = {
            (len(data), parse_header_untrusted(data).sender): data
            for data in datagrams
            if parse_header_untrusted(data).receiver_boot in boots
        }
        return list(kept.values())

    def generate(self) -> bytes:
        mutator = self._mutator
        choice = mutator.below(12)
        if choice == 0:
            return mutator.noise()
        data = bytes(mutator.pick(self._corpus))
        if choice == 1:
            return data  # a replay
        if choice < 6:
            return mutator.spoilt(data)
        if choice < 9:
            return self._with_body(data, mutator.spoilt(data[HEADER_BYTES:]))
        return self._with_header(data)

    def _with_body(self, data: bytes, body: bytes) -> bytes:
        """Another body. Without a key anybody can make the checksum right."""
        if self.sealed:
            return data[:HEADER_BYTES] + body
        return data[:HEADER_BYTES] + self._seal.seal(1, 1, data[:HEADER_BYTES], body[:-4])

    def _with_header(self, data: bytes) -> bytes:
        """Other ids, boots and counters, and in the open the same body under a right checksum."""
        header, pick = parse_header_untrusted(data), self._mutator.pick
        number = self.random.getrandbits(64)
        fields: dict[str, Any] = {
            "flags": pick((0, 0, 0, 1, 2, 255)),
            "fingerprint": pick((header.fingerprint, header.fingerprint, b"\0\0\0\0", b"abcd")),
            "cluster_id": pick((header.cluster_id, 0, number)),
            "sender": NodeId(pick((header.sender, header.sender, self.victim.id, number >> 1))),
            "sender_boot": pick((header.sender_boot, self.victim.boot, number, 1)),
            "receiver_boot": pick((self.victim.boot, 0, number, header.receiver_boot)),
            "counter": pick((header.counter + 1, number, 2**64 - 1, 1)) & (2**64 - 1),
        }
        head = encode_header(Header(**fields))
        body = data[HEADER_BYTES:]
        if self.sealed and fields["flags"] != 1:
            return head + body
        return head + self._seal.seal(1, 1, head, body[:-4])

    def feed(self, data: bytes) -> str:
        port = 1 + self._fed % 60_000
        return self.take(data, ("10.0.9.9", port))

    def check(self) -> None:
        super().check()
        assert self.works(), "the cluster does not work any more"


# --- with the key -------------------------------------------------------------------------------

_MESSAGE, _SEVERAL, _MULTICAST, _STREAM, _CHUNKS, _STALE = range(6)
"""What the first byte of an insider's input says the rest is; the second says who sends it."""

_FROM_CLIENTS = (OpenSession, Request, Query, StatusRequest, EndSession, Ping)
_OF_SNAPSHOTS = (Behind, SnapshotPull, SnapshotPart)
_OF_MEMBERS = (Order, Dismissed, Join, HeartbeatAck, QueryFailed)
_THEMES: tuple[tuple[type, ...], ...] = (
    *(KINDS, _FROM_CLIENTS, _OF_SNAPSHOTS, _OF_MEMBERS) * 6,
    *((kind,) for kind in KINDS),
)
_THEME_EVERY = 400
_ROLES = ("leader", "follower", "follower", "blank")


class Insider(Siege):
    """Two who have the key: a stranger, and one in the place of a voter. Nobody else is ill.

    A server may stop for good when it learns of two histories (`InvariantBroken`), since somebody
    who speaks for a voter can tell one, or of entries of a later release (`UpgradeNeeded`), which
    it may not pass over; the scene is then set up anew. Nothing else may stop it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.stopped = 0
        self.stuck = 0
        self._scenes = 0
        self._set_up()

    def _set_up(self) -> None:
        self._scenes += 1
        self._fed = 0
        self._theme: tuple[type, ...] = KINDS
        """What most messages are for a while: floods reach what variety does not."""
        seed, number = self.seed, self.seed * 1_000 + self._scenes
        role = _ROLES[seed % len(_ROLES)]
        self.sealed = seed // 4 % 2 == 0
        self.net = Net(number, sealed=self.sealed)
        self._election = ("bully", "ring")[seed // 2 % 2]
        if role == "blank":
            self.victim = Server(self.net, 0, expect=3, election=self._election)
            self._other = Server(self.net, 1, expect=3, election=self._election)
            place, node, self._disk = ("10.0.0.3", 4747), None, None
            self.net.run(400_000)
        else:
            servers = born(self.net, 3, self._election)
            leader = next(each for each in servers if each.engine.node.serving)
            following = [each for each in servers if each is not leader]
            self.victim = leader if role == "leader" else following[0]
            mad = following[1] if role == "leader" or number % 3 else leader
            self._disk, place, node = mad.crash(), mad.address, mad.id
            self._place = mad.number
        self._voter = Intruder(self.net, place, node)
        self._stranger = Intruder(self.net, ("10.0.9.9", 9))
        for intruder in (self._voter, self._stranger):
            intruder.endpoint.cluster_id = self.victim.engine.endpoint.cluster_id
            intruder.meet(self.victim.id, self.victim.address, self.victim.engine.endpoint)
        corpus = captured(False, self._election)
        self._mutator = Mutator(self.random, corpus.messages)
        self._maker = Maker(self.random, self._pool(corpus))
        self._copy = made_up_copy(self.victim.engine.cluster_id, self._voter.id)
        self._refresh()

    # --- inputs -------------------------------------------------------------------------------

    def _pool(self, corpus: Corpus) -> Pool:
        engine, mad = self.victim.engine, self._voter.id
        ids = (mad, self._stranger.id, self.victim.id)
        sets = [
            encode_voters(VoterSet("shop", engine.cluster_id, tuple(Voter(n, "s") for n in nodes)))
            for nodes in ((), (mad,), ids, tuple(sorted(ids)))
        ]
        return Pool(
            texts=["shop", self._election, "server-1", "", "x" * 300, "no_leader", "leader"],
            bodies=[b"", *corpus.commands, *corpus.queries, *corpus.elections, *corpus.outcomes],
            payloads=[b"", b"\x93", *corpus.payloads, *sets, *(set_[:-2] for set_ in sets)],
        )

    def _refresh(self) -> None:
        """Draw from what the victim knows by now."""
        engine, pool = self.victim.engine, self._maker.pool
        node, machine, number = engine.node, self.victim.machine, self.random.getrandbits(62)
        log, promised = node.log, node.promised
        mad, stranger = self._voter.id, self._stranger.id
        last, commit = log.last.index, node.commit
        pool.ballots = [
            promised,
            node.leader_ballot,
            Ballot(promised.term, mad),
            Ballot(promised.term + 1, mad),
            Ballot(promised.term + 1, mad),
            Ballot(promised.term + 1, stranger),
            Ballot(promised.term + 1, node.self_id),
            log.last.ballot,
        ]
        if self.random.random() < 0.02:
            jump = self._mutator.pick((2**31, TERM_JUMP_MAX, TERM_JUMP_MAX + 1, 2**62))
            pool.ballots.append(Ballot(min(promised.term + jump, 2**63 - 1), mad))
        places = (log.position(at) for at in (last, last, last - 1, commit, commit - 1, 1))
        pool.positions = [place for place in places if place is not None] + [ORIGIN]
        pool.numbers = [
            *(0, 1, 2, last, last + 1, commit, commit + 1, promised.term, node.now, node.clock_us),
            *(mad, stranger, node.self_id, engine.cluster_id, (2 << 12), (3 << 12)),
        ]
        sessions = [each.id for each in list(machine._sessions._sessions.values())[-4:]] or [1]
        lasts = [machine.last_number(session) or 0 for session in sessions]
        pool.named = {
            "cluster_name": ["shop"],
            "cluster_id": [engine.cluster_id],
            "label": [self._election],
            "session": [*sessions, number],
            "number": [
                *(last + 1 for last in lasts),
                lasts[0],
                getattr(node.role, "_number", 5),
                node.questions._number,
                number % 100,
            ],
            "nonce": [number, 5],
            "copy": [1, 2],
            "min_seq": [0, 0, machine.seq + 1, number],
            "what": ["promote", "remove", "leave", "transfer", "transfer", "rule"],
            "server": [0, mad, stranger, node.self_id, *node.voters(), number],
            **self._of_snapshots(),
        }

    def _of_snapshots(self) -> dict[str, list[Any]]:
        """What its desk gives, what it fetches itself, and what it might be told to fetch."""
        engine, node, copy = self.victim.engine, self.victim.engine.node, self._copy
        desk, fetch = engine._upkeep.desk._snapshot, engine._upkeep.fetch
        begun, offset = fetch._head, fetch._offset
        given = None if desk is None else desk.head
        heads = [each for each in (copy.head, begun, given) if each is not None]
        lies = [
            replace(copy.head, size_bytes=self._mutator.pick((0, 1, 999, 1 << 20, 2**63 - 1))),
            replace(copy.head, digest=self.random.randbytes(16)),
            replace(copy.head, position=node.log.last),
            replace(copy.head, voters=VoterSet("shop", 7, (Voter(1, "x"),) * 999)),
        ]
        return {
            "head": [copy.head, copy.head, *heads, begun, None, *lies],
            "digest": [b"", *(each.digest for each in heads)],
            "offset": [0, offset, offset, 2**62, 1 << 20],
            "data": [*[copy.read(offset, 16 << 10)] * 3, b"", b"x" * 999],
            "above": [0, node.commit, node.commit, node.log.last.index, 2**62],
            "base": [0, node.commit + 1, node.commit + 1, node.log.last.index, 2**62],
        }

    def _message(self) -> bytes:
        choice = self._mutator.below(10)
        if choice < 2:
            body = bytes(self._mutator.pick(captured(False, self._election).messages))
        else:
            body = encode(self._maker.any(self._theme if choice % 4 else KINDS))
        if choice < 6:
            return body
        return self._mutator.restructured(body) if choice < 9 else self._mutator.spoilt(body)

    def generate(self) -> bytes:
        if self._fed % TURN_EVERY == 0:
            self._refresh()
        if self._fed % _THEME_EVERY == 0:
            self._theme = self._mutator.pick(_THEMES)
        below = self._mutator.below
        who, choice = below(2), below(20)
        if choice < 12:
            return bytes([_MESSAGE, who]) + self._message()
        if choice < 15:
            bodies = (self._message() for _ in range(1 + below(12)))
            return bytes([_SEVERAL, who]) + b"".join(encode_unordered(body) for body in bodies)
        if choice == 15:
            return bytes([_MULTICAST, who]) + self._message()
        if choice == 16:
            return bytes([_STREAM, who]) + self._message()
        if choice == 17:
            return bytes([_STALE, who]) + encode_unordered(self._message())
        chunks = (
            encode_unordered(self._message()),
            encode_data(below(5), below(9), self.random.randbytes(1 + below(50))),
            encode_ack(below(5), below(99), [(below(99), below(99)) for _ in range(below(4))]),
            encode_announce(below(5), below(99)),
        )
        return bytes([_CHUNKS, who]) + self._mutator.spoilt(bytes(self._mutator.pick(chunks)))

    # --- taking them in -----------------------------------------------------------------------

    def feed(self, data: bytes) -> str:
        try:
            return self._feed(data)
        except (InvariantBroken, UpgradeNeeded):
            self.stopped += 1
            self._set_up()
            return "stopped"

    def _feed(self, data: bytes) -> str:
        kind, who = (data[0] % 6, data[1] % 2) if len(data) > 1 else (0, 0)
        body = data[2:_BODY_BYTES_MAX]
        intruder = self._voter if who else self._stranger
        victim = self.victim
        boot = 0 if kind == _STALE else victim.boot
        if kind == _MULTICAST:
            body = encode(MulticastBody(body))
        if kind == _STREAM:
            intruder.endpoint.send(victim.id, body, self.net.now)
            intruder.wake(self.net.now)
        chunks = encode_unordered(body) if kind in (_MESSAGE, _MULTICAST) else body
        if self._fed % 512 == 511:  # a server that lost sight of it greets anew
            intruder.meet(victim.id, victim.address, victim.engine.endpoint)
        return self.take(intruder.forge(boot, chunks), intruder.address)

    def check(self) -> None:
        """The insider goes, the voter in whose place it was comes back: what is left works?

        Who has the key may have disturbed what it could, so a cluster that is stuck is counted,
        not condemned.
        """
        super().check()
        if self._disk is not None:
            self._voter.leave()
            self._stranger.leave()
            try:
                Server(self.net, self._place, expect=3, election=self._election, disk=self._disk)
                self.stuck += not self.works()
            except (InvariantBroken, UpgradeNeeded):
                self.stopped += 1
        self._set_up()

    def sizes(self) -> dict[str, int]:
        return {**super().sizes(), "stopped": self.stopped, "stuck": self.stuck}


INBOX = (
    "wire.endpoint.Endpoint.receive_untrusted",
    "wire.endpoint.Endpoint._receive_untrusted",
)
TARGETS = (
    Target(
        "outsider",
        "whole datagrams of somebody without the key, to a server",
        (*INBOX, "wire.endpoint.Endpoint._take_wrong_key_untrusted"),
        Outsider,
        8_000,
        4_000,
        remembers=True,
    ),
    Target(
        "insider",
        "messages of somebody with the key, to a server",
        (*INBOX, "wire.codec.decode_untrusted"),
        Insider,
        8_000,
        4_000,
        remembers=True,
    ),
)
