"""The commands of a scene of two processes and the link between them: real endpoints.

Every datagram is told as its chunks, when it arrives or is lost.
"""

from __future__ import annotations

from collections import deque
from random import Random

from record import Record, settle
from script import duration_ms, expect
from timeline import Timeline

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint, LinkReset
from distinv.wire.frame import (
    HEADER_BYTES,
    Ack,
    Announce,
    Chunk,
    Data,
    Hello,
    parse_chunks_untrusted,
)
from distinv.wire.seal import PlainSeal

_LATENCY_US = 200


class _End:
    """One of the two processes."""

    def __init__(self, stage: LinkStage, number: int) -> None:
        self.stage = stage
        self.id = NodeId(number)
        self.name = "ab"[number - 1]
        self.address: Address = (f"10.0.0.{number}", 4747)
        self.sent: list[str] = []
        self.received: list[str] = []
        self._seal = PlainSeal()
        self._due: int | None = None
        self.endpoint = Endpoint(
            self_id=self.id,
            boot=1_000 + number,
            seal=self._seal,
            random=Random(number),
            timing=Timing(),
            limits=Limits(),
            payload_bytes=1_200,
        )

    def chunks(self, datagram: bytes) -> list[Chunk]:
        """What is in it; the header is in clear, and this seal only adds a checksum."""
        body = self._seal.open_untrusted(
            1_000 + self.id, 1, datagram[:HEADER_BYTES], datagram[HEADER_BYTES:]
        )
        return parse_chunks_untrusted(body)

    def turn(self) -> None:
        stage, now = self.stage, self.stage.timeline.now
        for event in self.endpoint.take_events():
            if isinstance(event, LinkReset):
                stage.record.say(f"{self.name}       link reset: {event.reason}")
        for _, datagram in self.endpoint.flush(now):
            stage.carry(self, datagram)
        self._due = self.endpoint.deadline()
        if self._due is not None:
            stage.timeline.at(self._due, self._wake, self._due)

    def _wake(self, due: int) -> None:
        if due == self._due:
            self.endpoint.on_deadline(self.stage.timeline.now)
            self.turn()

    def receive(self, datagram: bytes, source: _End) -> None:
        now = self.stage.timeline.now
        for incoming in self.endpoint.receive_untrusted(datagram, source.address, now):
            self.received.append(incoming.body.decode())
            self.stage.record.say(f'{self.name}       receives "{incoming.body.decode()}"')
        self.turn()


class LinkStage:
    """Two processes a and b that have met."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.record = Record(lambda: self.timeline.now, gap_us=1_000)
        self._ends = {"a": _End(self, 1), "b": _End(self, 2)}
        self._to_lose: dict[str, deque[None]] = {"a": deque(), "b": deque()}

    def do_link(self) -> None:
        a, b = self._ends.values()
        with self.record.silence():
            a.endpoint.connect(b.id, b.address, self.timeline.now)
            a.turn()
            settle(self.record, self.timeline.run)
        assert a.endpoint.connected(b.id), "they have not met"

    def do_send(self, name: str, *messages: str) -> None:
        """Messages in one datagram, as those of one turn."""
        end, other = self._end(name), self._end("b" if name == "a" else "a")
        for message in messages:
            end.sent.append(message)
            expect(end.endpoint.send(other.id, message.encode(), self.timeline.now), "queue full")
        end.turn()

    def do_lose(self, name: str, count: str) -> None:
        """The next datagrams of this end are lost."""
        self._to_lose[self._end(name).name].extend([None] * int(count))

    def do_tick(self, time: str) -> None:
        self.timeline.run(duration_ms(time))

    def do_run(self, until: str, what: str) -> None:
        expect((until, what) == ("until", "quiet"), "run until quiet")
        settle(self.record, self.timeline.run)

    def _end(self, name: str) -> _End:
        expect(name in self._ends, f"{name!r} is not a or b")
        return self._ends[name]

    # --- the network --------------------------------------------------------------------------

    def carry(self, source: _End, datagram: bytes) -> None:
        chunks = [_chunk(each) for each in source.chunks(datagram)]
        text = " + ".join(chunks)
        target = self._ends["b" if source.name == "a" else "a"]
        lost = self._to_lose[source.name]
        if lost:
            lost.popleft()
            self.record.say(f"{source.name} -x {target.name}  {text}   (lost)")
        else:
            self.timeline.after(_LATENCY_US, self._arrive, source, target, datagram, text)

    def _arrive(self, source: _End, target: _End, datagram: bytes, text: str) -> None:
        self.record.say(f"{source.name} -> {target.name}  {text}")
        target.receive(datagram, source)

    # --- checks -------------------------------------------------------------------------------

    def check_in_order(self) -> None:
        """Each end has received what the other sent: all of it, once, in order."""
        a, b = self._ends.values()
        for end, other in ((a, b), (b, a)):
            assert end.received == other.sent, f"{end.name} has received {end.received}"


def _chunk(chunk: Chunk) -> str:
    if isinstance(chunk, Data):
        return f"data {chunk.seq}"
    if isinstance(chunk, Announce):
        return f"announce: {chunk.next_seq} sent so far"
    if isinstance(chunk, Ack):
        missing = [str(seq) for first, n in chunk.missing for seq in range(first, first + n)]
        asked = f", send again {' '.join(missing)}" if missing else ""
        return f"ack: all below {chunk.next_seq} are here{asked}"
    return "hello" if isinstance(chunk, Hello) else type(chunk).__name__.lower()
