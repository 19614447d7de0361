"""Which process lives behind a peer's id now, proved and not guessed.

A peer's process (its boot) is believed only when a Hello of it repeats a random challenge that
this process drew for it: then the Hello was made after the challenge, by somebody with the key,
and every earlier datagram of that process is too old to count. Nothing recorded from the
network, of this process's time or before, can bring back an earlier process or a closed link.

    A                                                    B
    Hello(challenge a, wants answer)                 ─►
                                                     ◄─  Hello(challenge b, echo a, wants answer)
    B is adopted; Hello(challenge a, echo b)         ─►
                                                         A is adopted

A challenge stays the same for as long as the other side is to be known by it. So a peer whose
challenge has changed is one that forgot us, and has nothing left of the links.
"""

from __future__ import annotations

from enum import Enum, auto
from random import Random

from distinv.wire.frame import SPEAKS, Hello, common_protocol, encode_hello
from distinv.wire.seal import ReplayWindow

_RETIRED_KEPT = 4
"""Enough to recognise a second process under one id, which alternates with the first."""


class Meeting(Enum):
    """What a Hello proved."""

    NOTHING = auto()
    ADOPTED = auto()
    """The first process known under this id."""
    RESTARTED = auto()
    """Another process than the one known: that one is gone."""
    FORGOTTEN = auto()
    """The process known has forgotten us."""
    MISMATCH = auto()
    """It proved itself, and speaks no protocol that this process does."""
    TWIN = auto()
    """A process taken for gone is alive: two processes have this id."""


class Handshake:
    """The state of knowing one peer."""

    def __init__(
        self, random: Random, replay_window: int, speaks: tuple[int, int] = SPEAKS
    ) -> None:
        self._speaks = speaks
        self.boot = 0
        """The process believed in, 0 for none."""
        self.protocol = 0
        """The newest that it and this process speak."""
        self._random = random
        self._replay_window = replay_window
        self._seen = ReplayWindow(replay_window)
        self._bond = 0
        """The challenge by which `boot` was adopted."""
        self._offer = self._draw()
        """The challenge for any other process."""
        self._their_challenge = 0
        self._hello_counter = 0
        self._retired: tuple[int, ...] = ()

    def accept(self, counter: int) -> bool:
        """Whether a datagram of `boot` is seen for the first time."""
        return self._seen.accept(counter)

    def is_newest(self, counter: int) -> bool:
        return counter == self._seen.highest

    def hello_to(self, boot: int, echo: int) -> bytes:
        """A Hello chunk for the process `boot` (0: whoever it is)."""
        challenge = self._bond if self.boot and boot in (0, self.boot) else self._offer
        return encode_hello(challenge, echo, boot != self.boot or not boot, self._speaks)

    def on_hello(
        self, hello: Hello, boot: int, counter: int, names_us: bool, *, silent: bool = False
    ) -> Meeting:
        """A Hello of process `boot`; one of `self.boot` has passed `accept`.

        `silent`: nothing has been heard of `self.boot` for longer than one that lives is silent.
        """
        if boot == self.boot:
            return self._on_known(hello, counter)
        if not names_us or hello.echo != self._offer:
            return Meeting.NOTHING
        if boot in self._retired and not silent:
            return Meeting.TWIN
        if not common_protocol(hello.speaks, self._speaks):
            return Meeting.MISMATCH
        return self._adopt(hello, boot, counter)

    def _on_known(self, hello: Hello, counter: int) -> Meeting:
        if counter < self._hello_counter:
            return Meeting.NOTHING  # overtaken
        self._hello_counter = counter
        if hello.challenge == self._their_challenge:
            return Meeting.NOTHING
        self._their_challenge = hello.challenge
        return Meeting.FORGOTTEN

    def _adopt(self, hello: Hello, boot: int, counter: int) -> Meeting:
        before, self.boot = self.boot, boot
        self._seen = ReplayWindow(self._replay_window, floor=counter)
        self._bond, self._offer = self._offer, self._draw()
        self._their_challenge = hello.challenge
        self._hello_counter = counter
        self.protocol = common_protocol(hello.speaks, self._speaks)
        if not before:
            return Meeting.ADOPTED
        others = [each for each in self._retired if each != boot]
        self._retired = (*others, before)[-_RETIRED_KEPT:]
        return Meeting.RESTARTED

    def _draw(self) -> int:
        return self._random.randrange(1, 1 << 64)
