"""One identity, two processes: a data directory that was copied, or a disk that was cloned.

Two processes with one id are two votes of one voter, and a copy votes with an old log: what was
acknowledged may be lost. So a server that finds an identity on its disk asks before it takes part
(`roll_call.py`), and goes on listening afterwards, for the one that it could not hear then.

`Claim` asks, with a random nonce, `Claimed` repeats it: only a living process can, a recording
cannot. Whoever is answered decides, for itself:

- who has taken part for less time stops;
- of two that cannot be told apart, such as two that still ask, the one with the higher boot.

The other goes on and raises an alarm. How long is "longer" has the uncertainty of one round trip:
two processes started so close to each other, which did not hear each other before, may both stop,
which is safe, and cannot both go on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from attrs import define

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.errors import IdentityInUse
from distinv.transport.api import Address
from distinv.wire.messages import Claim, Claimed

NONCE_BITS = 63


@define
class _Place:
    """Where the id was heard under another boot."""

    ask_at: int
    """When it may be asked again, though it is heard all the time."""
    answered_until: int
    """Two that ask each other because they are asked come to an end."""
    alarm_at: int


class Twins:
    """Belongs to one run of one server. No I/O: what it returns is to be sent to that address."""

    def __init__(
        self,
        *,
        node: NodeId,
        boot: int,
        since: int | None,
        random: Random,
        timing: Timing,
        limits: Limits,
        tell: Callable[[str, str], None],
    ) -> None:
        """`since`: when it began to take part, None while it only asks whether it may.

        `tell(text, level)` takes a line for people.
        """
        self.displaced: IdentityInUse | None = None
        """Why this process has to stop: another one has its identity, and the better claim."""
        self.alarms = 0
        """Raised so far: another process has its identity, and stops."""
        self._node = node
        self._boot = boot
        self._since = since
        self._random = random
        self._timing = timing
        self._places_max = limits.notices_max
        self._tell = tell
        self._asked: OrderedDict[int, int] = OrderedDict()
        """By nonce, for how long this process had been up then; the oldest comes first."""
        self._places: OrderedDict[Address, _Place] = OrderedDict()

    @property
    def remembered(self) -> tuple[int, int]:
        """How many questions, and how many places."""
        return len(self._asked), len(self._places)

    def question(self, now: int) -> Claim:
        """Does anybody else run under this id?"""
        nonce = self._random.getrandbits(NONCE_BITS)
        self._asked[nonce] = self._up_us(now)
        if len(self._asked) > self._places_max:
            self._asked.popitem(last=False)
        return Claim(self._node, nonce, self._boot)

    def on_heard(self, address: Address, now: int) -> Claim | None:
        """The own id was heard from another process, or from the past: ask, now and then."""
        place = self._place(address, now)
        if now < place.ask_at:
            return None
        return self._ask(place, now)

    def _ask(self, place: _Place, now: int) -> Claim:
        place.ask_at = now + self._timing.notice_us
        return self.question(now)

    def on_claim(self, claim: Claim, address: Address, now: int) -> list[Claim | Claimed]:
        """Somebody asks for an id. For the own one it is answered, and asked in return."""
        if claim.node != self._node or claim.boot == self._boot:
            return []
        answers: list[Claim | Claimed] = [
            Claimed(self._node, claim.nonce, self._boot, self._up_us(now))
        ]
        place = self._place(address, now)
        if now >= place.answered_until:  # with every answer: the first to arrive may end it
            answers.append(self._ask(place, now))
        return answers

    def on_claimed(self, claimed: Claimed, address: Address, now: int) -> None:
        """Somebody has the own id: one of the two has to stop."""
        asked_us = self._asked.get(claimed.nonce)
        if asked_us is None or claimed.node != self._node or claimed.boot == self._boot:
            return
        place = self._place(address, now)
        place.answered_until = now + self._timing.notice_us
        if self._is_elder(claimed, asked_us, self._up_us(now)):
            self.displaced = self.displaced or IdentityInUse(
                f"another process at {address[0]}:{address[1]} has this server's identity "
                f"({self._node:016x}) and was there first: this one stops. {_WAY_FORWARD}"
            )
            return
        if now >= place.alarm_at:
            place.alarm_at = now + self._timing.alarm_us
            self.alarms += 1
            self._tell(
                f"another process at {address[0]}:{address[1]} has this server's identity "
                f"({self._node:016x}) and came later: it stops, this one goes on. {_WAY_FORWARD}",
                "error",
            )

    def _is_elder(self, other: Claimed, asked_us: int, now_us: int) -> bool:
        """The other's time was read between `asked_us` and `now_us` of this process's own."""
        if other.up_us > now_us:
            return True
        return asked_us <= other.up_us and other.boot < self._boot

    def _up_us(self, now: int) -> int:
        return 0 if self._since is None else max(1, now - self._since)

    def _place(self, address: Address, now: int) -> _Place:
        place = self._places.get(address)
        if place is None:
            place = self._places[address] = _Place(now, now, now)
            if len(self._places) > self._places_max:
                self._places.popitem(last=False)
        return place


_WAY_FORWARD = (
    "Was its data directory copied, or its machine cloned? Let one of the two run; start the other "
    "with an empty data directory, and it joins as a new server"
)
