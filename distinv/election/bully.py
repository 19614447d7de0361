"""The bully election: the highest id that lives should lead.

H. Garcia-Molina, "Elections in a Distributed Computing System", IEEE Transactions on Computers
C-31(1), 1982, section IV. A server that misses the leader asks all higher ids; one that answers
takes over and asks in turn; who hears no answer has won and announces it.

Where this leaves the paper:

- The winner is nominated, not ordained: the core's quorum decides, so the paper's assumptions
  (no lost messages, bounded delays) are needed for speed only. The announcement just makes the
  others wait instead of competing.
- The leader that is suspected is asked nothing and not waited for: the highest of the others
  wins at once instead of after one time-out.
- A lower id's announcement is not fought at once. It may win; if it does not in time, the
  election starts again and the higher id has its turn.
- Elections are numbered, and an answer to an earlier one is dropped.

```
phase     left by                                               to
IDLE      suspicion, or ELECTION from a lower id                ASKING
          COORDINATOR, no leader known                          WAITING
ASKING    ANSWER to this election                               ANSWERED
          COORDINATOR                                           WAITING
          no answer in time, or nobody to ask:
            won, COORDINATOR to all, Nominate(self)             WAITING
ANSWERED  COORDINATOR                                           WAITING
          none in time                                          ASKING, or IDLE *
WAITING   no leader in time                                     ASKING, or IDLE *
any       a leader is in office, or no longer a voter           IDLE

* IDLE when this server hears a leader: the election was another server's wish only.
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated, TypeAlias

import msgspec

from distinv.election.api import ElectionAction, ElectionContext, Nominate, SendElection
from distinv.election.patience import patience_us
from distinv.entry import Ballot, NodeId
from distinv.errors import BadDatagram

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ElectionCall(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """ELECTION: you have a higher id. Do you live?"""

    number: _Number
    """The asker's election; echoed."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """ANSWER: I live, leave it to me."""

    number: _Number


class Coordinator(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """COORDINATOR: nobody higher answered me; I am about to lead, or I lead already."""


BullyMessage: TypeAlias = ElectionCall | Answer | Coordinator

_BODY_BYTES_MAX = 32
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[BullyMessage] = msgspec.msgpack.Decoder(BullyMessage)
_COORDINATOR = _encode(Coordinator())


def decode_untrusted(body: bytes) -> BullyMessage:
    """One message of this election. Raises BadDatagram."""
    if len(body) > _BODY_BYTES_MAX:
        raise BadDatagram("a bully message is too long")
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BadDatagram(f"not a bully message: {error}") from error


class Phase(Enum):
    """See the table above."""

    IDLE = "idle"
    ASKING = "asking"
    ANSWERED = "answered"
    WAITING = "waiting"


class Bully:
    """One server's part. Its state is a few integers and the list of voters."""

    __slots__ = (
        "_deadline",
        "_leader",
        "_members",
        "_nominee",
        "_number",
        "_random",
        "_rounds",
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
        self._nominee: NodeId | None = None
        """Whose announcement this server waits upon; meaningful in WAITING."""
        self._number = context.random.getrandbits(32)
        """Random at first: an answer to a former life of this server must not fit."""
        self._rounds = 0
        """Elections started since the last leader."""
        self._deadline: int | None = None

    # --- the core's events --------------------------------------------------------------------

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        self._leader = None
        self._suspected = leader
        if self.phase is Phase.IDLE:
            return self._start(now)
        if self.phase is Phase.ASKING and not self._higher():
            return self._win(now)  # it only waited for the one that is now suspected
        return ()

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        self._leader = leader
        self._suspected = None
        self._rounds = 0
        self._rest()
        return ()

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        self._members = tuple(voters)
        if self.self_id not in self._members:
            self._rest()
        return ()

    def deadline(self) -> int | None:
        return self._deadline

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        if self._deadline is None or now < self._deadline:
            return ()
        if self.phase is Phase.ASKING:
            return self._win(now)
        if self._leader is not None:
            self._rest()
            return ()
        return self._start(now)

    # --- the peers' messages ------------------------------------------------------------------

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        if source not in self._members or self.self_id not in self._members:
            return ()
        try:
            message = decode_untrusted(body)
        except BadDatagram:
            return ()
        if isinstance(message, ElectionCall):
            return self._on_call(source, message, now)
        if isinstance(message, Answer):
            self._on_answer(source, message, now)
        elif source != self.self_id:
            self._on_coordinator(source, now)
        return ()

    def _on_call(self, source: NodeId, call: ElectionCall, now: int) -> list[ElectionAction]:
        if source >= self.self_id:
            return []  # only lower ids ask
        if self._leader == self.self_id:
            return [SendElection(source, _COORDINATOR)]
        actions: list[ElectionAction] = [SendElection(source, _encode(Answer(call.number)))]
        if self.phase is Phase.WAITING and self._nominee == self.self_id:
            actions.append(SendElection(source, _COORDINATOR))  # the first one may be lost
        elif self.phase is Phase.IDLE:
            actions.extend(self._start(now))
        return actions

    def _on_answer(self, source: NodeId, answer: Answer, now: int) -> None:
        if self.phase is Phase.ASKING and answer.number == self._number and source > self.self_id:
            self._enter(Phase.ANSWERED, now + self._patience_us())

    def _on_coordinator(self, source: NodeId, now: int) -> None:
        if self._leader is None and self.phase is not Phase.WAITING:
            # In WAITING the deadline stands: repeated announcements must not postpone it.
            self._nominee = source
            self._enter(Phase.WAITING, now + self._patience_us())

    # --- transitions --------------------------------------------------------------------------

    def _start(self, now: int) -> list[ElectionAction]:
        if self.self_id not in self._members:
            self._rest()
            return []
        self._number += 1
        self._rounds += 1
        higher = self._higher()
        if not higher:
            return self._win(now)
        self._enter(Phase.ASKING, now + self._timing.election_answer_us)
        call = _encode(ElectionCall(self._number))
        return [SendElection(member, call) for member in higher]

    def _win(self, now: int) -> list[ElectionAction]:
        self._nominee = self.self_id
        self._enter(Phase.WAITING, now + self._patience_us())
        actions: list[ElectionAction] = [Nominate(self.self_id)]
        actions.extend(
            SendElection(member, _COORDINATOR) for member in self._members if member != self.self_id
        )
        return actions

    def _enter(self, phase: Phase, deadline: int) -> None:
        self.phase = phase
        self._deadline = deadline

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        self._nominee = None
        self._deadline = None

    # --- helpers ------------------------------------------------------------------------------

    def _higher(self) -> list[NodeId]:
        """Who goes before this server, but for the leader it misses."""
        return [
            member
            for member in self._members
            if member > self.self_id and member != self._suspected
        ]

    def _patience_us(self) -> int:
        return patience_us(self._timing, self._random, self._rounds)
