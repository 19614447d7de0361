"""Before a server takes part: does anybody else run under the id that it found on its disk?

It calls three times in a short window, under a name of the moment, so that nobody takes it for
the server that it may not be: no link is made or broken, nothing is promised, acknowledged or
voted. An elder's answer keeps it from starting (`twins.py` decides). Nobody's is no proof: whoever
was cut off meanwhile is met later, by `Twins` in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.errors import BadDatagram, IdentityInUse
from distinv.server.twins import Twins
from distinv.transport.api import Address
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Claim, Claimed

CALLS = 3
"""A datagram may be lost."""


class RollCall:
    """One window of asking. No I/O."""

    def __init__(
        self,
        *,
        node: NodeId,
        boot: int,
        make_endpoint: Callable[[], Endpoint],
        targets: Callable[[], Sequence[Address]],
        timing: Timing,
        limits: Limits,
        random: Random,
        tell: Callable[[str, str], None],
        now: int,
    ) -> None:
        """`node` and `boot` are those under which the server would run.

        `make_endpoint` makes endpoints of one id and boot that are used for nothing else, ever.
        `tell(text, level)` takes a line for people.
        """
        self._mouth = make_endpoint()
        self._ear = make_endpoint()
        """Never flushed: it would answer greetings."""
        self._twins = Twins(
            node=node,
            boot=boot,
            since=None,
            random=random,
            timing=timing,
            limits=limits,
            tell=tell,
        )
        self._targets = targets
        self._interval_us = timing.roll_call_us // CALLS
        self._ends_at = now + timing.roll_call_us
        self._call_at = now

    @property
    def refusal(self) -> IdentityInUse | None:
        """Why the server must not start, as soon as that is known."""
        return self._twins.displaced

    def over(self, now: int) -> bool:
        """The window is over, or somebody has answered whose answer counts."""
        return now >= self._ends_at or self.refusal is not None

    def deadline(self) -> int:
        """When to call `on_deadline`, or to see that it is over."""
        return min(self._call_at, self._ends_at)

    def on_deadline(self, now: int) -> None:
        """Call, if it is time to."""
        if now < self._call_at or self.over(now):
            return
        self._call_at = now + self._interval_us
        for target in self._targets():
            self._mouth.send_to(target, encode(self._twins.question(now)), now)

    def receive(self, data: bytes, address: Address, now: int) -> None:
        """A datagram from the network, whatever it may be."""
        for incoming in self._ear.receive_untrusted(data, address, now):
            try:
                message = decode_untrusted(incoming.body)
            except BadDatagram:
                continue
            if isinstance(message, Claim):
                for answer in self._twins.on_claim(message, address, now):
                    self._mouth.send_to(address, encode(answer), now)
            elif isinstance(message, Claimed):
                self._twins.on_claimed(message, address, now)
        self._ear.take_events()

    def flush(self, now: int) -> list[tuple[Address, bytes]]:
        """The datagrams to send now."""
        return self._mouth.flush(now)
