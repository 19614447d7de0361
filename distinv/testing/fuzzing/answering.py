"""Target: everything that a client can be sent, by servers that have the key and mean ill."""

from __future__ import annotations

from random import Random
from typing import Any

from distinv.entry import Ballot
from distinv.errors import DistinvError
from distinv.inventory import calls
from distinv.testing.fuzzing import bounds
from distinv.testing.fuzzing.corpus import captured, questions, work
from distinv.testing.fuzzing.inbox import INBOX, TURN_EVERY
from distinv.testing.fuzzing.making import KINDS, Maker, Pool
from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.scene import Client, Intruder, Net
from distinv.testing.fuzzing.target import Target
from distinv.wire.codec import encode
from distinv.wire.frame import encode_unordered
from distinv.wire.messages import (
    Answer,
    Beacon,
    NotTaken,
    Pong,
    QueryFailed,
    Reply,
    Servers,
    SessionEnded,
    SessionOpened,
)

_TO_CLIENTS = (Reply, Answer, NotTaken, QueryFailed, SessionOpened, SessionEnded, Servers, Pong)
_LONG_PAUSE_US = 900_000
"""Long enough for a silent server to be left."""
_BODY_BYTES_MAX = 60_000


class Answers:
    """A client whose servers are hostile: it has calls open, and they answer what they like."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"answers {seed}")
        self.net = Net(seed, sealed=seed % 2 == 0)
        self._pauses = Random(f"pauses {seed}")
        self.client = Client(self.net, 1)
        self._servers = [Intruder(self.net, (f"10.0.0.{n + 1}", 4747)) for n in range(3)]
        self._open: dict[int, Any] = {}
        self._fed = 0
        corpus = captured(False)
        self._mutator = Mutator(self.random, corpus.messages)
        self._maker = Maker(
            self.random,
            Pool(bodies=[b"", *corpus.outcomes, *corpus.outcomes, *corpus.answers]),
        )
        self._calls: list[Any] = [*work(), *questions()]
        self._introduce()

    def _introduce(self) -> None:
        """The servers announce themselves, and the client gets in touch."""
        first = self._servers[0]
        for server in self._servers:
            server.endpoint.cluster_id = self.client.session._endpoint.cluster_id
            ballot, address = Ballot(1, first.id), first.address
            beacon = Beacon("shop", 7, "hostile", first.id, address, ballot, 1, 3, ())
            chunk = encode_unordered(encode(beacon))
            self.net.send(server.address, self.client.address, server.forge(0, chunk))
        self.net.run(5_000)
        for server in self._servers:
            server.meet(self.client.id, self.client.address, self.client.session._endpoint)

    def generate(self) -> bytes:
        if self._fed % TURN_EVERY == 0:
            self._refresh()
        below = self._mutator.below
        who, choice = below(3), below(10)
        body = encode(self._maker.any(_TO_CLIENTS if choice % 3 else KINDS))
        if choice < 2:
            body = bytes(self._mutator.pick(captured(False).messages))
        if choice > 4:
            body = self._mutator.restructured(body) if choice < 8 else self._mutator.spoilt(body)
        return bytes([who]) + body

    def _refresh(self) -> None:
        pool, session = self._maker.pool, self.client.session
        stream: Any = session._stream
        waiting = [*stream._window]
        ids = [server.id for server in self._servers]
        pool.numbers = [
            *(0, 1, 2, 3, stream.session, stream.session, stream._nonce, stream._lowest, 4_096),
            *(waiting[:4] or [1]),
            *(list(self._open)[-6:] or [1]),
            *ids,
        ]
        pool.named = {
            "session": [stream.session],
            "nonce": [stream._nonce],
            "number": [*waiting, *self._open, stream._nonce],
            "copy": [1, 1, 2, 3],
            "cluster_name": ["shop"],
        }
        pool.ballots = [Ballot(term, node) for term in (1, 2, 3) for node in ids]
        pool.texts = [
            *("shop", "leader", "no_leader", "not_leader", "overloaded", "gap", "session_expired"),
            *("invalid_request", "x" * 1_000),
        ]

    def feed(self, data: bytes) -> str:
        server = self._servers[data[0] % 3 if data else 0]
        body = data[1:_BODY_BYTES_MAX]
        datagram = server.forge(self.client.boot, encode_unordered(body))
        self.client.session.receive(datagram, server.address, self.net.now)
        self._fed += 1
        if self._fed % TURN_EVERY:
            return "taken"
        ended = self._end_turn()
        return "answered" if ended else "taken"

    def _end_turn(self) -> int:
        client = self.client
        self.client.wake(self.net.now)
        self.net.run(_LONG_PAUSE_US if self._pauses.random() < 0.02 else 300)
        ended, client.ended = client.ended, []
        for completion in ended:
            call = self._open.pop(completion.call)  # a call ends once
            if completion.error is not None:
                assert isinstance(completion.error, DistinvError)
                continue
            if isinstance(completion.value, bytes):
                try:
                    call.value(completion.value)
                except DistinvError:
                    pass
        while len(self._open) < 8:
            self._submit()
        sizes = bounds.session_sizes(client.session)
        bounds.check(sizes, bounds.session_bounds(self.net.config.limits))
        if self._fed % 2_048 == 0:
            self._introduce()
        return len(ended)

    def _submit(self) -> None:
        session, now = self.client.session, self.net.now
        deadline = now + self._pauses.choice((50_000, 1_000_000, 10_000_000))
        call = self._pauses.choice(self._calls)
        if isinstance(call, calls.Call):
            number = session.submit(call.encode(), now, deadline)
        else:
            number = session.query(call.encode(), now, deadline)
        self._open[number] = call
        if self._pauses.random() < 0.05:
            self._open[session.status(now, deadline)] = call

    def check(self) -> None:
        self.client.session._endpoint.check()
        assert len(self._open) == len(self.client.session._book) + len(self.client.ended)

    def sizes(self) -> dict[str, int]:
        return bounds.session_sizes(self.client.session)


TARGETS = (
    Target(
        "client",
        "messages of hostile servers, to a client",
        INBOX,
        Answers,
        8_000,
        8_000,
        remembers=True,
    ),
)
