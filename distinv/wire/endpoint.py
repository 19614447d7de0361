"""One process's end of every link: seal, frame and links composed, without I/O.

A driver hands in what was received and the time, and sends what `flush` returns. After every
`receive_untrusted` and `on_deadline` it takes the events, *before* it looks at the messages
received: a `LinkReset` belongs before the first message of the new link.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from random import Random

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.errors import BadDatagram, ConfigError
from distinv.transport.api import Address
from distinv.wire.events import (
    EndpointEvent,
    Incoming,
    LinkReset,
    Notice,
    PeerSeen,
    Stats,
    TwinHeard,
)
from distinv.wire.frame import (
    CHUNK_BYTES,
    DATA_BYTES,
    DATAGRAM_BYTES_MAX,
    HEADER_BYTES,
    SPEAKS,
    VERSION,
    WRONG_KEY,
    Chunk,
    Header,
    Hello,
    Unordered,
    encode_header,
    encode_plain_header,
    encode_unordered,
    mismatch,
    parse_chunks_untrusted,
    parse_header_untrusted,
    version_untrusted,
)
from distinv.wire.handshake import Meeting
from distinv.wire.link import WINDOW_FLOOR_SEGMENTS, LinkContext
from distinv.wire.peer import Packer, Peer
from distinv.wire.seal import PlainSeal, Seal

PAYLOAD_BYTES_MIN = 576
"""What every network passes in one piece (RFC 1122); it holds the longest acknowledgement."""


class Endpoint:
    """The links of one process (`self_id`, `boot`) to all its peers.

    `boot` is a random number of this run, never used before: with a key it keeps nonces apart.
    `payload_bytes` is the largest datagram to make. Times are microseconds of one monotonic
    clock. Raises ConfigError for a `payload_bytes` that cannot be.
    """

    def __init__(
        self,
        *,
        self_id: NodeId,
        boot: int,
        seal: Seal,
        random: Random,
        timing: Timing,
        limits: Limits,
        payload_bytes: int,
        cluster_id: int = 0,
        speaks: tuple[int, int] = SPEAKS,
    ) -> None:
        self.speaks = speaks
        self.cluster_id = cluster_id
        self.stats = Stats()
        self.dropped: dict[str, int] = {}
        """Datagrams and messages dropped, by reason."""
        self._id = self_id
        self._boot = boot
        self._seal = seal
        self._fingerprint = seal.fingerprint
        self._timing = timing
        self._limits = limits
        if not PAYLOAD_BYTES_MIN <= payload_bytes <= DATAGRAM_BYTES_MAX:
            raise ConfigError(f"datagrams of {payload_bytes} bytes cannot be used")
        self._room_bytes = payload_bytes - HEADER_BYTES - seal.overhead_bytes
        self._context = LinkContext(
            timing=timing,
            limits=limits,
            random=random,
            segment_bytes=min(
                self._room_bytes - DATA_BYTES, limits.link_window_bytes // WINDOW_FLOOR_SEGMENTS
            ),
            next_epoch=count(1).__next__,
            stats=self.stats,
            speaks=speaks,
        )
        self._counter = 0
        self._peers: OrderedDict[NodeId, Peer] = OrderedDict()
        """The one not heard of for the longest time comes first."""
        self._touched: dict[NodeId, Peer] = {}
        """Those that may have something to send at the next flush."""
        self._timers: dict[NodeId, int] = {}
        self._soonest: int | None = None
        """The first of the timers."""
        self._strays: dict[Address, list[bytes]] = {}
        """Unordered chunks for addresses."""
        self._answers: list[tuple[Address, bytes]] = []
        """Whole datagrams in clear for the next flush."""
        self.events: list[EndpointEvent] = []
        """What happened since the last `take_events`."""
        self._noticed: OrderedDict[tuple[str, Address], int] = OrderedDict()
        """When each warning may be repeated."""

    @property
    def boot(self) -> int:
        """This run of the process."""
        return self._boot

    # --- receiving --------------------------------------------------------------------------

    def receive_untrusted(self, data: bytes, address: Address, now: int) -> list[Incoming]:
        """The messages that became deliverable. Raises nothing; garbage is counted in `dropped`."""
        stats = self.stats
        stats.received_datagrams += 1
        stats.received_bytes += len(data)
        try:
            return self._receive_untrusted(data, address, now)
        except BadDatagram as error:
            self._drop(str(error))
            return []

    def _receive_untrusted(self, data: bytes, address: Address, now: int) -> list[Incoming]:
        if data[2:3] != _VERSION_BYTE and (version := version_untrusted(data)) != VERSION:
            self._notice(
                "version_mismatch", address, mismatch((version, version), (VERSION, VERSION)), now
            )
            raise BadDatagram("version")
        header = parse_header_untrusted(data)
        if header.flags & WRONG_KEY:
            return self._take_wrong_key_untrusted(data, header, address, now)
        if header.fingerprint != self._fingerprint:
            self._answer_wrong_key(header, address, now)
            raise BadDatagram("other key")
        body = self._seal.open_untrusted(
            header.sender_boot, header.counter, data[:HEADER_BYTES], data[HEADER_BYTES:]
        )
        chunks = parse_chunks_untrusted(body)
        if header.cluster_id != self.cluster_id and self._is_foreign(header):
            detail = f"it belongs to cluster {header.cluster_id:016x}"
            self._notice("foreign_cluster", address, detail, now)
            return self._unfresh(chunks, header, address)
        return self._take(header, chunks, address, now)

    def _is_foreign(self, header: Header) -> bool:
        return bool(self.cluster_id and header.cluster_id and header.cluster_id != self.cluster_id)

    def _take(
        self, header: Header, chunks: Sequence[Chunk], address: Address, now: int
    ) -> list[Incoming]:
        """A datagram that somebody of this cluster made, at some time, for somebody."""
        if header.sender == self._id:
            return self._take_own(header, chunks, address)
        peer = self._peers.get(header.sender)
        if peer is not None and peer.handshake.boot == header.sender_boot:
            if not peer.handshake.accept(header.counter):
                raise BadDatagram("replay")
            peer.heard_at = now
            self._peers.move_to_end(peer.id)
        if peer is None:
            if not header.receiver_boot and _hello_of(chunks) is None:
                return self._unfresh(chunks, header, address)
            peer = self._add(header.sender, now)
        if header.receiver_boot not in (0, self._boot):
            peer.offer(address, header.sender_boot, now)
            self._touch(peer)
            raise BadDatagram("earlier process")
        return self._take_of(peer, header, chunks, address, now)

    def _take_own(
        self, header: Header, chunks: Sequence[Chunk], address: Address
    ) -> list[Incoming]:
        """Under this process's own id: there is no link to oneself, nor to who says to be it."""
        if header.sender_boot == self._boot:
            raise BadDatagram("own")
        self.events.append(TwinHeard(address))
        return self._unfresh(chunks, header, address)

    def _take_of(
        self, peer: Peer, header: Header, chunks: Sequence[Chunk], address: Address, now: int
    ) -> list[Incoming]:
        """A datagram for this process, from a process that says it is `peer`."""
        self._touched[peer.id] = peer
        hello = _hello_of(chunks)
        if hello is not None and self._meet(peer, hello, header, address, now) is Meeting.TWIN:
            return []
        known = peer.handshake.boot == header.sender_boot
        if not known:
            peer.offer(address, header.sender_boot, now)
            return self._unfresh(chunks, header, address)
        if header.receiver_boot == 0:
            # To whom it may concern, from a process that is known, and not had before.
            return self._unfresh(chunks, header, address, known=True)
        if address != peer.address and hello is None and peer.handshake.is_newest(header.counter):
            peer.found(address)
            self.events.append(PeerSeen(peer.id, address))
        bodies: list[bytes] = []
        if not peer.take(chunks, now, bodies):
            peer.restart_sender()
            self._reset_event(peer, "refused")
        if not bodies:
            return []
        cluster_id, sender = header.cluster_id, peer.id
        return [Incoming(sender, address, body, True, False, cluster_id) for body in bodies]

    def _unfresh(
        self, chunks: Sequence[Chunk], header: Header, address: Address, *, known: bool = False
    ) -> list[Incoming]:
        """The unordered messages of a datagram of which nothing else counts."""
        foreign = self._is_foreign(header)
        known = known and not foreign
        return [
            Incoming(header.sender, address, chunk.body, False, foreign, header.cluster_id, known)
            for chunk in chunks
            if isinstance(chunk, Unordered)
        ]

    def _meet(
        self, peer: Peer, hello: Hello, header: Header, address: Address, now: int
    ) -> Meeting:
        names_us = header.receiver_boot == self._boot
        boot = header.sender_boot
        if peer.address is None:
            peer.learn(address, now)
        silent = now - peer.heard_at > self._timing.suspect_ceiling_us
        meeting = peer.handshake.on_hello(hello, boot, header.counter, names_us, silent=silent)
        if meeting is Meeting.TWIN:
            self._notice("same_id", address, _SAME_ID, now)
            return meeting
        if meeting is Meeting.MISMATCH:
            self._notice("version_mismatch", address, mismatch(hello.speaks, self.speaks), now)
        if meeting is Meeting.RESTARTED:
            self._drop_links(peer, "restarted")
        elif meeting is Meeting.FORGOTTEN:
            self._drop_links(peer, "forgotten")
        if meeting in (Meeting.ADOPTED, Meeting.RESTARTED):
            peer.found(address)
            peer.heard_at = now
            self._peers.move_to_end(peer.id)
            self.events.append(PeerSeen(peer.id, address))
        if hello.wants_answer:
            peer.greet(address, boot, hello.challenge)
        return meeting

    # --- other keys -------------------------------------------------------------------------

    def _answer_wrong_key(self, header: Header, address: Address, now: int) -> None:
        """Somebody with another key: name it here, and let the other side name ours."""
        if not self._notice("wrong_key", address, self._key_detail(header.fingerprint), now):
            return
        answer = encode_header(
            Header(
                flags=WRONG_KEY,
                fingerprint=self._fingerprint,
                cluster_id=0,
                sender=self._id,
                sender_boot=self._boot,
                receiver_boot=header.sender_boot,
                counter=header.counter,
            )
        )
        self._answers.append((address, answer + _CLEAR.seal(0, 0, answer, b"")))

    def _take_wrong_key_untrusted(
        self, data: bytes, header: Header, address: Address, now: int
    ) -> list[Incoming]:
        """Never answered. It repeats our boot, which only those know who received from us."""
        _CLEAR.open_untrusted(0, 0, data[:HEADER_BYTES], data[HEADER_BYTES:])
        asked = header.receiver_boot == self._boot
        if not asked or header.fingerprint == self._fingerprint:
            raise BadDatagram("wrong key unasked")
        self._notice("wrong_key", address, self._key_detail(header.fingerprint), now)
        return []

    def _key_detail(self, theirs: bytes) -> str:
        return f"it has {_key_name(theirs)}, this process has {_key_name(self._fingerprint)}"

    # --- sending ----------------------------------------------------------------------------

    def connect(self, peer: NodeId, address: Address, now: int) -> None:
        """`peer` may live at `address`: get in touch with it, unless it is there already."""
        known = self._peers.get(peer) or self._add(peer, now)
        if not known.boot:
            known.seek(now, address)
        elif known.address != address:
            known.offer(address, 0, now)
        self._touch(known)

    def send(self, peer: NodeId, body: bytes, now: int) -> bool:
        """Queue one ordered message, also for a peer that is yet to be found.

        False: the queue was full. Everything in it is gone, and a LinkReset says so.
        Raises ValueError for a body of more than `Limits.message_bytes`.
        """
        if len(body) > self._limits.message_bytes:
            raise ValueError(f"a message of {len(body)} bytes")
        known = self._peers.get(peer) or self._add(peer, now)
        self._touch(known)
        if not known.push(body):
            known.restart_sender()
            self._reset_event(known, "queue_full")
            return False
        if not known.boot:
            known.seek(now)
        return True

    def send_now(self, peer: NodeId, body: bytes, now: int) -> None:
        """Send one unordered message at most once, ahead of the ordered ones.

        It is dropped when it does not fit one datagram or the peer's process is not known; but
        then the peer is sought, if it has an address.
        """
        known = self._peers.get(peer)
        if known is None:
            self._drop("unknown peer")
            return
        self._touch(known)
        if not known.boot:
            known.seek(now)
            self._drop("unknown peer")
            return
        chunk = self._unordered(body)
        if chunk is not None:
            known.urgent.append(chunk)

    def send_to(self, address: Address, body: bytes, now: int) -> None:
        """Send one unordered message to whoever lives at `address`.

        It arrives not fresh; known, where this process is.
        """
        chunk = self._unordered(body)
        if chunk is not None:
            self._strays.setdefault(address, []).append(chunk)

    def _unordered(self, body: bytes) -> bytes | None:
        if CHUNK_BYTES + len(body) > self._room_bytes:
            self._drop("unordered message too long")
            return None
        return encode_unordered(body)

    def reset(self, peer: NodeId, now: int) -> None:
        """Abandon everything queued or under way to `peer`. No LinkReset: the caller knows."""
        known = self._peers.get(peer)
        if known is not None:
            known.restart_sender()
            self._touch(known)

    def forget(self, peer: NodeId) -> None:
        """Drop all that is known of `peer`, without an event. It may come back by itself."""
        self._peers.pop(peer, None)
        self._touched.pop(peer, None)
        if self._timers.pop(peer, None) is not None:
            self._soonest = min(self._timers.values(), default=None)

    def address_of(self, peer: NodeId) -> Address | None:
        """Where the peer lives or is sought."""
        known = self._peers.get(peer)
        return None if known is None else known.address

    def protocol_of(self, peer: NodeId) -> int:
        """The newest protocol that the peer's present process and this one speak; 0: not known."""
        known = self._peers.get(peer)
        return 0 if known is None else known.handshake.protocol

    def connected(self, peer: NodeId) -> bool:
        """Whether the peer's present process is known."""
        known = self._peers.get(peer)
        return known is not None and bool(known.boot)

    # --- turns ------------------------------------------------------------------------------

    def flush(self, now: int) -> list[tuple[Address, bytes]]:
        """The datagrams to send now; to one peer never more than a link's window."""
        out, self._answers = self._answers, []
        if self._strays:
            strays, self._strays = self._strays, {}
            for address, chunks in strays.items():
                packer = Packer(self._room_bytes)
                for chunk in chunks:
                    packer.add(chunk)
                packer.close()
                out += [(address, self._datagram(0, body)) for body in packer.bodies]
        if self._touched:
            touched, self._touched = self._touched, {}
            for peer in touched.values():
                self._flush_peer(peer, out, now)
            self._soonest = min(self._timers.values(), default=None)
        if out:
            self.stats.sent_datagrams += len(out)
            for _, data in out:
                self.stats.sent_bytes += len(data)
        return out

    def _flush_peer(self, peer: Peer, out: list[tuple[Address, bytes]], now: int) -> None:
        if peer.greet_at is not None:
            peer.seek_if_due(now)
        if peer.greeting is not None:
            greeting = peer.take_separate_greeting()
            if greeting is not None:
                out.append((greeting.address, self._datagram(greeting.boot, greeting.chunk)))
        address, boot = peer.address, peer.handshake.boot
        if boot and address is not None:
            for body in peer.pack(self._room_bytes, now):
                out.append((address, self._datagram(boot, body)))
        at = peer.deadline()
        if at is None:
            self._timers.pop(peer.id, None)
        else:
            self._timers[peer.id] = at

    def _datagram(self, receiver_boot: int, body: bytes) -> bytes:
        self._counter += 1
        header = encode_plain_header(
            self._fingerprint,
            self.cluster_id,
            self._id,
            self._boot,
            receiver_boot,
            self._counter,
        )
        return header + self._seal.seal(self._boot, self._counter, header, body)

    def deadline(self) -> int | None:
        """When to call `on_deadline`; valid after `flush`."""
        soonest = self._soonest
        for peer in self._peers.values():
            idle_at = peer.heard_at + self._timing.link_idle_us
            return idle_at if soonest is None or idle_at < soonest else soonest
        return soonest

    def on_deadline(self, now: int) -> None:
        """The time of `deadline` has come. Call `flush` afterwards."""
        for id in [id for id, at in self._timers.items() if at <= now]:
            peer = self._peers[id]
            peer.on_deadline(now)
            self._touch(peer)
        while self._peers:
            peer = next(iter(self._peers.values()))
            if peer.heard_at + self._timing.link_idle_us > now:
                return
            self._lose(peer, "idle")

    def take_events(self) -> list[EndpointEvent]:
        """What happened since the last call. See it before the messages received meanwhile."""
        events, self.events = self.events, []
        return events

    def check(self) -> None:
        """Assert what always holds; for tests."""
        assert len(self._peers) <= self._limits.peers_max
        assert self._timers.keys() <= self._peers.keys()
        heard = [peer.heard_at for peer in self._peers.values()]
        assert heard == sorted(heard), "the one not heard of for the longest time comes first"
        for peer in self._peers.values():
            peer.check()

    # --- peers ------------------------------------------------------------------------------

    def _add(self, id: NodeId, now: int) -> Peer:
        if len(self._peers) >= self._limits.peers_max:
            self._lose(next(iter(self._peers.values())), "evicted")
        peer = self._peers[id] = Peer(id, self._context, now)
        return peer

    def _touch(self, peer: Peer) -> None:
        self._touched[peer.id] = peer

    def _lose(self, peer: Peer, reason: str) -> None:
        self.forget(peer.id)
        if peer.in_use:
            self._reset_event(peer, reason)

    def _drop_links(self, peer: Peer, reason: str) -> None:
        peer.drop_links(restarted=reason == "restarted")
        self._reset_event(peer, reason)

    def _reset_event(self, peer: Peer, reason: str) -> None:
        self.stats.resets += 1
        self.events.append(LinkReset(peer.id, reason))

    # --- what is counted and told -----------------------------------------------------------

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _notice(self, kind: str, address: Address, detail: str, now: int) -> bool:
        """Warn, unless the same was said a moment ago; whether it was said."""
        key = (kind, address)
        if self._noticed.get(key, now) > now:
            return False
        self._noticed[key] = now + self._timing.notice_us
        self._noticed.move_to_end(key)
        if len(self._noticed) > self._limits.notices_max:
            self._noticed.popitem(last=False)
        self.events.append(Notice(kind, address, detail))
        return True


_VERSION_BYTE = bytes([VERSION])
_CLEAR = PlainSeal()
_SAME_ID = "two processes have this id: was a data directory copied?"


def _hello_of(chunks: Sequence[Chunk]) -> Hello | None:
    """A Hello comes first, so that what follows it in the datagram already counts."""
    first = chunks[0] if chunks else None
    return first if isinstance(first, Hello) else None


def _key_name(fingerprint: bytes) -> str:
    return f"the key {fingerprint.hex()}" if any(fingerprint) else "no key"


__all__ = [
    "Endpoint",
    "EndpointEvent",
    "Incoming",
    "LinkReset",
    "Notice",
    "PeerSeen",
    "Stats",
    "TwinHeard",
]
