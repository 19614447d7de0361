"""All that an endpoint knows of one peer: where it is, which process, and both links."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from distinv.entry import NodeId
from distinv.transport.api import Address
from distinv.wire.frame import Ack, Announce, Chunk, Data, Refuse, Unordered
from distinv.wire.handshake import Handshake
from distinv.wire.link import LinkContext, LinkReceiver, LinkSender, jittered, sooner


@frozen
class Greeting:
    """A Hello to send at the next flush."""

    address: Address
    boot: int
    """The process it is for, 0 for whoever lives there."""
    chunk: bytes


class Peer:
    """One entry of the endpoint's table; its owner decides when it is heard, flushed, forgotten."""

    def __init__(self, id: NodeId, context: LinkContext, now: int) -> None:
        self.id = id
        self.address: Address | None = None
        self.heard_at = now
        self.handshake = Handshake(context.random, context.limits.replay_window, context.speaks)
        self.urgent: list[bytes] = []
        """Unordered chunks for the next flush."""
        self.greeting: Greeting | None = None
        self._context = context
        self._sender = self._new_sender()
        self._receiver: LinkReceiver | None = None
        self.greet_at: int | None = None
        """When `seek_if_due` has something to do. Invariant: None once the process is known."""
        self._greetings = 0
        self._offer_after = now

    @property
    def boot(self) -> int:
        return self.handshake.boot

    @property
    def in_use(self) -> bool:
        """Somebody may count on this peer's links."""
        return bool(self.boot) or not self._sender.idle

    # --- links ------------------------------------------------------------------------------

    def push(self, body: bytes) -> bool:
        return self._sender.push(body)

    def restart_sender(self) -> None:
        """Abandon what is queued and under way; go on under a new epoch, and say so."""
        self._sender = self._new_sender()
        self._sender.announce()

    def drop_links(self, *, restarted: bool) -> None:
        """The peer's memory of us is gone, and with `restarted` the process itself.

        A process that only forgot goes on counting epochs, so its links are told apart.
        """
        self._sender = self._new_sender()
        self.urgent.clear()
        if restarted:
            self._receiver = None

    def _new_sender(self) -> LinkSender:
        return LinkSender(self._context.next_epoch(), self._context)

    def take(self, chunks: Sequence[Chunk], now: int, bodies: list[bytes]) -> bool:
        """Take the chunks of a fresh datagram; False when the peer refuses our stream."""
        data = refused = False
        for chunk in chunks:
            if isinstance(chunk, Data):
                receiver = self._receiver_of(chunk.epoch)
                if receiver is not None:
                    receiver.on_data(chunk, now, bodies)
                    data = True
            elif isinstance(chunk, Ack):
                self._sender.on_ack(chunk, now)
            elif isinstance(chunk, Unordered):
                bodies.append(chunk.body)
            elif isinstance(chunk, Announce):
                receiver = self._receiver_of(chunk.epoch)
                if receiver is not None:
                    receiver.on_announce(chunk, now)
            elif isinstance(chunk, Refuse):
                refused |= chunk.epoch == self._sender.epoch
        if data and self._receiver is not None:
            self._receiver.end_datagram(now)
        return not refused

    def _receiver_of(self, epoch: int) -> LinkReceiver | None:
        """The receiver of an epoch, begun afresh for a new one; None for an abandoned one."""
        receiver = self._receiver
        if receiver is None or epoch > receiver.epoch:
            self._receiver = receiver = LinkReceiver(epoch, self._context)
        return receiver if epoch == receiver.epoch else None

    def pack(self, room_bytes: int, now: int) -> Sequence[bytes]:
        """The bodies of the datagrams to send now, each of at most `room_bytes`.

        What bypasses the order goes first, then the acknowledgement, then the stream.
        """
        sender, receiver = self._sender, self._receiver
        ready = sender.begin_flush(now)
        due_at = None if receiver is None else receiver.deadline()
        ack_due = due_at is not None and due_at <= now
        if not (ready or ack_due or self.urgent or self.greeting is not None):
            return ()  # most often: a datagram came that only wants to be acknowledged, in time
        packer = Packer(room_bytes)
        if self.greeting is not None and self._greets_present():
            packer.add(self._take_greeting())
        if self.urgent:
            for chunk in self.urgent:
                packer.add(chunk)
            self.urgent.clear()
        if receiver is not None and (ack_due or (receiver.owes_ack and (ready or packer.used))):
            packer.add(receiver.take_ack(now))
        while ready:
            data = sender.next_chunk(packer.room, now)
            if data is None:
                packer.close()
            else:
                packer.add(data)
            ready = sender.ready
        packer.close()
        return packer.bodies

    # --- getting in touch -------------------------------------------------------------------

    def seek(self, now: int, address: Address | None = None) -> None:
        """Something is wanted of a peer whose process is not known, perhaps at a new address."""
        if address is not None and address != self.address:
            self.address = address
            self.greet_at = None
        if self.greet_at is None:
            self._greetings = 0
            self.greet_at = now

    def learn(self, address: Address, now: int) -> None:
        """It spoke from there. Should that come to nothing, what waits for it seeks it there."""
        self.address = address
        if self.in_use and not self.boot:
            self._greetings = 0
            self.greet_at = now + self._context.timing.link_retransmit_us

    def found(self, address: Address) -> None:
        self.address = address
        self.greet_at = None

    def greet(self, address: Address, boot: int, echo: int = 0) -> None:
        """Send a Hello at the next flush; it replaces one that still waits."""
        self.greeting = Greeting(address, boot, self.handshake.hello_to(boot, echo))

    def offer(self, address: Address, boot: int, now: int) -> None:
        """A process we do not believe in speaks: let it prove itself. Rate-limited."""
        if now >= self._offer_after and self.greeting is None:
            self._offer_after = now + self._context.timing.link_nak_us
            self.greet(address, boot)

    def take_separate_greeting(self) -> Greeting | None:
        """A greeting that cannot ride on the links' datagrams."""
        if self.greeting is None or self._greets_present():
            return None
        greeting, self.greeting = self.greeting, None
        return greeting

    def _greets_present(self) -> bool:
        greeting = self.greeting
        return (
            greeting is not None
            and greeting.boot == self.boot != 0
            and greeting.address == self.address
        )

    def _take_greeting(self) -> bytes:
        assert self.greeting is not None
        chunk, self.greeting = self.greeting.chunk, None
        return chunk

    # --- time -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When `on_deadline` has something to do; valid after a flush."""
        if not self.handshake.boot:
            return self.greet_at
        at = self._sender.deadline()
        if self._receiver is None:
            return at
        receiver_at = self._receiver.deadline()
        return receiver_at if at is None else sooner(at, receiver_at)

    def on_deadline(self, now: int) -> None:
        self._sender.on_deadline(now)

    def seek_if_due(self, now: int) -> None:
        """At every flush: greet a peer that something is wanted of, again and again."""
        if self.greet_at is None or self.greet_at > now:
            return
        self.greet_at = None
        if self.address is None:
            return
        self.greet(self.address, 0)
        timing = self._context.timing
        wait_us = min(
            timing.link_retransmit_us << min(self._greetings, 10),
            timing.link_retransmit_ceiling_us,
        )
        self._greetings += 1
        if self._greetings < self._context.limits.hello_attempts or not self._sender.idle:
            self.greet_at = now + jittered(self._context.random, wait_us)

    def check(self) -> None:
        """Assert what always holds; for tests."""
        assert self.greet_at is None or not self.boot, "seeks whom it knows"
        self._sender.check()
        if self._receiver is not None:
            self._receiver.check()


class Packer:
    """Chunks into as few datagram bodies as their order allows. Each chunk fits an empty one."""

    def __init__(self, room_bytes: int) -> None:
        self.bodies: list[bytes] = []
        self.room = room_bytes
        """Bytes left in the open body."""
        self._room_bytes = room_bytes
        self._chunks: list[bytes] = []

    @property
    def used(self) -> bool:
        return bool(self._chunks or self.bodies)

    def add(self, chunk: bytes) -> None:
        size = len(chunk)
        if size > self.room:
            self.close()
        self._chunks.append(chunk)
        self.room -= size

    def close(self) -> None:
        """End the open body; something has been added to it."""
        self.bodies.append(b"".join(self._chunks))
        self._chunks = []
        self.room = self._room_bytes
