"""The ring election: the best candidate's id that comes back to its owner has won.

E. Chang and R. Roberts, "An Improved Algorithm for Decentralized Extrema-Finding in Circular
Configurations of Processes", Communications of the ACM 22(5), 1979. The voters form a ring in
ascending order of their ids. An ELECTION message carries the best id seen so far; a server puts
its own in when that is higher, and swallows a message that is worse than what it has passed on.
The owner of the id that comes all the way round has won; ELECTED then tells the others.

Where this leaves the paper, whose ring is unidirectional, reliable and complete:

- Every hop is acknowledged. A successor that stays silent for `Timing.election_answer_us` is
  left out for the rest of this election, and the message goes to the one behind it. A leader
  that is suspected is left out from the start.
- Elections are numbered. A higher number ends what a server knows of a lower one, a lower one
  is dropped, and the acknowledgement says which number is current, so that a server which
  slept catches up. In one election a server passes on only what is better than what it has
  passed on before; with the bound on hops nothing circulates for ever, also when the owner of
  the best id died on the way.
- The winner is nominated, not ordained: the core's quorum decides.

```
phase          left by                                          to
IDLE           suspicion, or ELECTION with a higher number      PARTICIPATING
               ELECTED with a higher number                     ELECTED
PARTICIPATING  the own id came back, or all others are silent:
                 won, ELECTED goes round, Nominate(self)        ELECTED
               ELECTED                                          ELECTED
               neither in time                                  PARTICIPATING, or IDLE *
ELECTED        no leader in time                                PARTICIPATING, or IDLE *
any            a leader is in office, or no longer a voter      IDLE

* IDLE when this server hears a leader: the election was another server's wish only.
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated, TypeAlias

import msgspec
from attrs import define

from distinv.election.api import ElectionAction, ElectionContext, Nominate, SendElection
from distinv.election.patience import jitter_us, patience_us
from distinv.entry import Ballot, NodeId
from distinv.errors import BadDatagram

_NUMBER_MAX = 2**63 - 1
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_NUMBER_MAX)]
_Id: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Hops: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Token(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """ELECTION: the best candidate among those this message has passed."""

    number: _Number
    """The election's."""
    candidate: _Id
    hops: _Hops
    """How many servers have passed it on."""
    serial: _Number
    """The sender's; echoed in the acknowledgement."""


class Elected(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """ELECTED: the candidate's id came back to it."""

    number: _Number
    candidate: _Id
    hops: _Hops
    serial: _Number


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """I live and have your message."""

    serial: _Number
    number: _Number
    """The highest election the sender knows of."""


RingMessage: TypeAlias = Token | Elected | Ack

_BODY_BYTES_MAX = 64
_NUMBER_JUMP_MAX = 2**32
"""A number further ahead than this is nonsense: elections are counted one by one."""
_TRIES = 3
"""How often a message is sent to one successor within the answer time: one datagram may be lost."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[RingMessage] = msgspec.msgpack.Decoder(RingMessage)


def decode_untrusted(body: bytes) -> RingMessage:
    """One message of this election. Raises BadDatagram."""
    if len(body) > _BODY_BYTES_MAX:
        raise BadDatagram("a ring message is too long")
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BadDatagram(f"not a ring message: {error}") from error


class Phase(Enum):
    """See the table above."""

    IDLE = "idle"
    PARTICIPATING = "participating"
    ELECTED = "elected"


@define
class _Hop:
    """The one message that is under way to a successor and not yet acknowledged."""

    message: Token | Elected
    target: NodeId
    tries: int
    deadline: int


class Ring:
    """One server's part. Its state is one message under way, a few integers and the voters."""

    __slots__ = (
        "_best",
        "_deadline",
        "_hop",
        "_leader",
        "_members",
        "_number",
        "_random",
        "_rounds",
        "_serial",
        "_silent",
        "_suspected",
        "_timing",
        "phase",
        "self_id",
    )

    def __init__(self, context: ElectionContext) -> None:
        self.self_id = context.self_id
        self.phase = Phase.IDLE
        self._timing = context.timing
        self._random = context.random
        self._members: tuple[NodeId, ...] = ()
        self._leader: NodeId | None = None
        """In office, and not suspected since."""
        self._suspected: NodeId | None = None
        self._number = 0
        """The highest election known. IDLE: it is over, and its messages are old."""
        self._best: int = 0
        """The best candidate passed on in this election."""
        self._silent: tuple[NodeId, ...] = ()
        """Who did not acknowledge in this election; voters only, so bounded."""
        self._hop: _Hop | None = None
        self._serial = context.random.getrandbits(32)
        self._rounds = 0
        """Elections started since the last leader."""
        self._deadline: int | None = None
        """When to give this election up."""

    # --- the core's events --------------------------------------------------------------------

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        self._leader = None
        self._suspected = leader
        if self.phase is Phase.IDLE:
            return self._start(now)
        if self._hop is not None and self._hop.target == leader:
            return self._skip(self._hop, now)
        return ()

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        self._leader = leader
        self._suspected = None
        self._rounds = 0
        self._rest()
        return ()

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        self._members = tuple(voters)
        self._silent = tuple(member for member in self._silent if member in self._members)
        if self.self_id not in self._members:
            self._rest()
        return ()

    def deadline(self) -> int | None:
        if self._hop is None or self._deadline is None:
            return self._deadline
        return min(self._hop.deadline, self._deadline)

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        if self._deadline is not None and now >= self._deadline:
            if self._leader is None:
                return self._start(now)
            self._rest()
        elif self._hop is not None and now >= self._hop.deadline:
            return self._repeat(self._hop, now)
        return ()

    # --- the peers' messages ------------------------------------------------------------------

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        if source not in self._members or self.self_id not in self._members:
            return ()
        try:
            message = decode_untrusted(body)
        except BadDatagram:
            return ()
        if isinstance(message, Ack):
            self._on_ack(source, message, now)
            return ()
        if message.number > self._number + _NUMBER_JUMP_MAX:
            return ()
        actions = self._on_passed(message, now)
        ack = _encode(Ack(message.serial, self._number))
        return [SendElection(source, ack), *actions]

    def _on_ack(self, source: NodeId, ack: Ack, now: int) -> None:
        hop = self._hop
        if hop is None or hop.target != source or hop.message.serial != ack.serial:
            return
        self._hop = None
        if self._number < ack.number <= self._number + _NUMBER_JUMP_MAX:
            # This server slept and counted too low: its message was dropped. Start anew above,
            # but at a time of its own choosing, lest a peer could make it spin.
            self._number = ack.number
            self._deadline = now + 1 + jitter_us(self._timing, self._random)

    def _on_passed(self, message: Token | Elected, now: int) -> list[ElectionAction]:
        """What follows from a message that goes round, its acknowledgement apart."""
        if message.candidate not in self._members or message.number < self._number:
            return []
        if message.number > self._number:
            self._join(message.number, now)
        elif self.phase is not Phase.PARTICIPATING:
            return []
        if isinstance(message, Elected):
            return self._on_elected(message, now)
        return self._on_token(message, now)

    def _on_token(self, token: Token, now: int) -> list[ElectionAction]:
        if self._leader == self.self_id:
            # In office: who started this has not heard so. Nothing to nominate.
            self._enter_elected(now)
            return self._pass_on(Elected(token.number, self.self_id, 0, 0), now)
        if token.candidate == self.self_id:
            return self._win(now) if self._best == self.self_id else []
        if max(token.candidate, self.self_id) <= self._best:
            return []
        if token.candidate > self.self_id:
            self._best = token.candidate
            hops = token.hops + 1
        else:
            self._best = self.self_id
            hops = 0
        return self._pass_on(Token(token.number, self._best, hops, 0), now)

    def _on_elected(self, elected: Elected, now: int) -> list[ElectionAction]:
        self._enter_elected(now)
        hops = elected.hops + 1
        return self._pass_on(Elected(elected.number, elected.candidate, hops, 0), now)

    # --- transitions --------------------------------------------------------------------------

    def _start(self, now: int) -> list[ElectionAction]:
        if self.self_id not in self._members or self._number >= _NUMBER_MAX:
            self._rest()
            return []
        self._rounds += 1
        self._join(self._number + 1, now)
        self._best = self.self_id
        return self._pass_on(Token(self._number, self.self_id, 0, 0), now)

    def _join(self, number: int, now: int) -> None:
        """Take part in election `number`, about which nothing is known yet."""
        self.phase = Phase.PARTICIPATING
        self._number = number
        self._best = 0
        self._silent = ()
        self._hop = None
        round_us = self._timing.election_answer_us * (len(self._members) + 1)
        self._deadline = now + round_us + jitter_us(self._timing, self._random)

    def _win(self, now: int) -> list[ElectionAction]:
        self._enter_elected(now)
        passed = self._pass_on(Elected(self._number, self.self_id, 0, 0), now)
        return [Nominate(self.self_id), *passed]

    def _enter_elected(self, now: int) -> None:
        self.phase = Phase.ELECTED
        self._hop = None
        self._deadline = now + patience_us(self._timing, self._random, self._rounds)

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        self._silent = ()
        self._hop = None
        self._deadline = None

    # --- one hop ------------------------------------------------------------------------------

    def _pass_on(self, message: Token | Elected, now: int) -> list[ElectionAction]:
        """Send to the next that may live. Replaces what was under way: this is newer and better."""
        self._hop = None
        target = self._successor()
        if message.hops > len(self._members):
            return []
        if target is None:
            # Nobody else answers. The own candidacy has been all the way round, so to speak.
            own = isinstance(message, Token) and message.candidate == self.self_id
            return self._win(now) if own else []
        self._serial += 1
        message = msgspec.structs.replace(message, serial=self._serial)
        self._hop = _Hop(message, target, 1, now + self._try_us())
        return [SendElection(target, _encode(message))]

    def _repeat(self, hop: _Hop, now: int) -> list[ElectionAction]:
        if hop.tries >= _TRIES:
            return self._skip(hop, now)
        hop.tries += 1
        hop.deadline = now + self._try_us()
        return [SendElection(hop.target, _encode(hop.message))]

    def _skip(self, hop: _Hop, now: int) -> list[ElectionAction]:
        self._silent = (*self._silent, hop.target)
        return self._pass_on(hop.message, now)

    def _successor(self) -> NodeId | None:
        """The next in ring order that is not known to be silent, None when nobody is left."""
        place = self._members.index(self.self_id)
        ring = self._members[place + 1 :] + self._members[:place]
        for member in ring:
            if member != self._suspected and member not in self._silent:
                return member
        return None

    def _try_us(self) -> int:
        return max(1, self._timing.election_answer_us // _TRIES)
