"""Target: an endpoint alone, against a peer that has the key and knows how datagrams are made."""

from __future__ import annotations

from random import Random

from attrs import evolve

from distinv import config
from distinv.entry import ClusterId, NodeId
from distinv.testing.fuzzing.corpus import captured
from distinv.testing.fuzzing.mutation import EDGES, Mutator
from distinv.testing.fuzzing.target import Target
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint, LinkReset
from distinv.wire.frame import (
    VERSION,
    WRONG_KEY,
    Header,
    encode_ack,
    encode_announce,
    encode_data,
    encode_header,
    encode_hello,
    encode_refuse,
    encode_unordered,
)
from distinv.wire.seal import KeySeal, PlainSeal, Seal

VICTIM: Address = ("10.0.0.1", 1)
HOSTILE: Address = ("10.0.0.2", 2)
_PAUSES_US = (0, 0, 0, 100, 1_000, 7_000, 40_000, 400_000)
_LONG_US = 40_000_000
_DATAGRAM, _CHUNKS, _HEADED = range(3)
"""What the first byte of an input says the rest is."""


class Links:
    """The victim has a peer of old that turned hostile; anybody else may speak as well."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._pauses = Random(seed + 1)
        self._mutator = Mutator(self._random, captured(False).bodies)
        self._limits = evolve(
            config.test().limits,
            message_bytes=2_000,
            link_window_fragments=32,
            link_window_bytes=16_000,
            link_queue_bytes=30_000,
            link_reorder_bytes=4_000,
            peers_max=8,
            notices_max=8,
        )
        self._seal: Seal = KeySeal(bytes(32)) if seed % 2 else PlainSeal()
        self.now = 1
        self._fed = 0
        self._delivered = 0
        self._victim = self._endpoint(1)
        self._hostile = self._endpoint(2)
        self._meet()

    def _endpoint(self, node: int) -> Endpoint:
        return Endpoint(
            self_id=NodeId(node),
            boot=self._random.randrange(1, 1 << 63),
            seal=self._seal,
            random=Random(self._random.getrandbits(64)),
            timing=config.test().timing,
            limits=self._limits,
            payload_bytes=1_200,
        )

    def _meet(self) -> None:
        self._hostile.connect(self._victim._id, VICTIM, self.now)
        for _ in range(4):
            self._exchange(self._hostile, HOSTILE)

    def _exchange(self, other: Endpoint, address: Address) -> list[bytes]:
        """One round of datagrams both ways; what the victim was told."""
        self.now += 100
        heard: list[bytes] = []
        for _, data in other.flush(self.now):
            heard += [each.body for each in self._victim.receive_untrusted(data, address, self.now)]
        for target, data in self._victim.flush(self.now):
            if target == address:
                other.receive_untrusted(data, VICTIM, self.now)
        return heard

    # --- inputs -------------------------------------------------------------------------------

    def generate(self) -> bytes:
        choice = self._mutator.below(10)
        if choice == 0:
            return bytes([_DATAGRAM]) + self._mutator.spoilt(self._datagram())
        chunks = b"".join(self._chunk() for _ in range(self._mutator.below(5)))
        if choice < 3:
            chunks = self._mutator.spoilt(chunks)
        if choice < 8:
            return bytes([_CHUNKS]) + chunks
        return bytes([_HEADED]) + self._random.randbytes(6) + chunks

    def _datagram(self) -> bytes:
        """A right one, or a notice of another key, or one of another version."""
        choice = self._mutator.below(4)
        if choice == 0:
            return self._hostile._datagram(self._victim._boot, self._chunk())
        print_ = self._random.randbytes(4)
        head = Header(WRONG_KEY, print_, 0, NodeId(9), 5, self._victim._boot, 1)
        notice = encode_header(head)
        if choice == 1:
            return notice + PlainSeal().seal(0, 0, notice, b"")
        if choice == 2:
            return notice[:2] + bytes([VERSION + 1]) + notice[3:]
        return bytes(self._mutator.pick(captured(bool(self._fed % 2)).datagrams))

    def _small(self, limit: int) -> int:
        """A number near those in use, or at an edge."""
        if self._random.random() < 0.8:
            return self._mutator.below(60)
        return int(self._mutator.pick(EDGES)) % limit

    def _chunk(self) -> bytes:
        peer = self._victim._peers.get(self._hostile._id)
        epoch, receiver = self._small(1 << 32), None
        if peer is not None and self._random.random() < 0.8:
            receiver = peer._receiver
            epoch = receiver.epoch if receiver is not None else 1
        seq = receiver._next + self._mutator.below(40) if receiver else self._small(1 << 64)
        choice = self._mutator.below(9)
        if choice <= 2:
            length = self._mutator.pick((1, 3, 100, 600))
            payload = self._mutator.pick(
                (b"\0\0\0\2ok", bytes(length), self._random.randbytes(length))
            )
            return encode_data(epoch, seq % (1 << 64), payload)
        if choice == 3:
            ours = peer._sender.epoch if peer is not None else 1
            ranges = [
                (self._small(1 << 64), self._small(1 << 32)) for _ in range(self._mutator.below(34))
            ]
            return encode_ack(ours, self._small(1 << 64), ranges)
        if choice == 4:
            return encode_announce(epoch, self._small(1 << 64))
        if choice == 5:
            return encode_hello(
                1 + self._small(1 << 63), self._small(1 << 64), self._random.random() < 0.5
            )
        if choice == 6:
            return encode_refuse(peer._sender.epoch if peer is not None else epoch)
        return encode_unordered(self._random.randbytes(self._mutator.below(30)))

    # --- taking them in -----------------------------------------------------------------------

    def feed(self, data: bytes) -> str:
        kind, rest = (data[0] % 3, data[1:]) if data else (0, b"")
        victim = self._victim
        if kind == _CHUNKS:
            datagram = self._hostile._datagram(victim._boot, rest[:60_000])
        elif kind == _HEADED:
            datagram = self._headed(rest[:6].ljust(6, b"\0"), rest[6:60_000])
        else:
            datagram = rest
        dropped = sum(victim.dropped.values())
        incoming = victim.receive_untrusted(datagram, HOSTILE, self.now)
        victim.check()
        refused = sum(victim.dropped.values()) > dropped
        assert not (refused and incoming), "dropped and delivered"
        self._pass_time()
        if refused:
            return "dropped"
        return "delivered" if incoming else "taken"

    def _headed(self, choices: bytes, body: bytes) -> bytes:
        """Ids, boots and counters out of the air, the victim's own among them."""
        sender = choices[0] % 12 + 1
        boots = (self._hostile._boot, victim_boot := self._victim._boot, choices[1] + 1, 2**64 - 1)
        header = encode_header(
            Header(
                0,
                self._seal.fingerprint,
                ClusterId(choices[5] % 2 * 7),
                NodeId(sender),
                boots[choices[1] % 4],
                (0, victim_boot, 78, choices[3])[choices[2] % 4],
                (choices[3] + 1, 2**63, 2**64 - 1, choices[4] * 5_000 + 1)[choices[4] % 4],
            )
        )
        boot = int.from_bytes(header[24:32], "big")
        counter = int.from_bytes(header[40:48], "big")
        return header + self._seal.seal(boot, counter, header, body)

    def _pass_time(self) -> None:
        self._fed += 1
        victim = self._victim
        self.now += self._pauses.choice(_PAUSES_US)
        if self._fed % 997 == 0:
            self.now += _LONG_US
        if self._fed % 8 == 0:
            victim.send(self._hostile._id, bytes(700), self.now)
        if self._fed % 4 == 0:
            due = victim.deadline()
            if due is not None and due <= self.now:
                victim.on_deadline(self.now)
            sent = victim.flush(self.now)
            assert sum(len(data) for _, data in sent) < 4 * self._limits.link_window_bytes
            resets = [each for each in victim.take_events() if isinstance(each, LinkReset)]
            assert len(resets) <= 64
        if self._fed % 50 == 0:
            self._hostile.take_events()
            self._meet()

    def check(self) -> None:
        """Somebody honest can talk to the victim, and what it keeps is within bounds."""
        sizes = self.sizes()
        assert sizes["peers"] <= self._limits.peers_max
        assert sizes["noticed"] <= self._limits.notices_max
        assert sizes["touched"] <= self._limits.peers_max
        assert sizes["bytes"] <= self._limits.peers_max * (
            self._limits.link_queue_bytes
            + self._limits.link_window_bytes
            + self._limits.link_reorder_bytes
            + 2 * self._limits.message_bytes
        )
        honest, address = self._endpoint(100 + self._fed), ("10.0.0.3", 3)
        honest.connect(self._victim._id, VICTIM, self.now)
        honest.send(self._victim._id, b"works", self.now)
        heard: list[bytes] = []
        for _ in range(30):
            heard += self._exchange(honest, address)
            self.now += 50_000
            honest.on_deadline(self.now)
            self._victim.on_deadline(self.now)
        assert heard.count(b"works") == 1, "an honest peer is not heard any more"
        self._victim.take_events()

    def sizes(self) -> dict[str, int]:
        victim = self._victim
        kept = 0
        for peer in victim._peers.values():
            kept += peer._sender._flight_bytes + peer._sender._stream.waiting_bytes
            if peer._receiver is not None:
                kept += peer._receiver._parts_bytes + len(peer._receiver._stream._partial)
                assert len(peer._receiver._unasked) <= 4 * self._limits.link_window_fragments
        return {
            "peers": len(victim._peers),
            "noticed": len(victim._noticed),
            "touched": len(victim._touched),
            "bytes": kept,
        }


TARGETS = (
    Target(
        "links",
        "datagrams and chunks of a hostile peer, to an endpoint",
        (
            "wire.endpoint.Endpoint.receive_untrusted",
            "wire.endpoint.Endpoint._receive_untrusted",
            "wire.endpoint.Endpoint._take_wrong_key_untrusted",
        ),
        Links,
        20_000,
        5_000,
        remembers=True,
    ),
)
