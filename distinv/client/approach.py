"""How a client comes to the leader that somebody named: ask it for a sign of life, and ask on."""

from __future__ import annotations


class Approach:
    """What is under way towards the leader named last. The router does the asking."""

    def __init__(self, ping_us: int, named_us: int) -> None:
        self.waits_until: int | None = None
        """Until when to wait for it to answer before staying with the present home."""
        self.ask_at: int | None = None
        """When to ask it again: the home refused what only a leader takes."""
        self.is_news = False
        """It has not been the home since it was named, so it has refused nothing yet."""
        self.question_at: int | None = None
        """When to ask whom somebody named; only the last one named meanwhile is asked."""
        self._questions_after = 0
        self._resend = False
        self._ping_us = ping_us
        self._named_us = named_us
        self._hint_at = 0
        """When to take a hint for news again."""

    @property
    def under_way(self) -> bool:
        return self.waits_until is not None or self.ask_at is not None

    def named(self, now: int, *, certain: bool) -> bool:
        """Another leader was named; whether that is news.

        A hint without a ballot (not `certain`) may be old: two servers that name each other must
        not have everything sent to and fro at the speed of the network.
        """
        if not certain:
            if now < self._hint_at:
                return False
            self._hint_at = now + self._ping_us
        self.is_news = True
        return True

    def ask_soon(self, now: int) -> None:
        """Ask the one named, at the end of this turn. Who names others all the time, at addresses
        of third parties, does not make this client send as often."""
        if self.question_at is None:
            self.question_at = max(now, self._questions_after)

    def asks(self, now: int) -> bool:
        """Now is the time to ask."""
        if self.question_at is None or now < self.question_at:
            return False
        self.question_at = None
        self._questions_after = now + self._named_us
        return True

    def wait(self, now: int, *, resend: bool) -> None:
        """`resend`: if it does not answer, what the home took in is sent again."""
        self.waits_until = now + self._ping_us
        self._resend = resend

    def ask_on(self, now: int) -> None:
        """On a lossy line one question is probably lost: ask until it answers."""
        self.ask_at = now + self._ping_us // 2

    def stop(self) -> None:
        """The home is another, or there is none."""
        self.waits_until = self.ask_at = None

    def gives_up(self, now: int) -> bool:
        """The wait is over; true when what the home took in is to be sent again."""
        if self.waits_until is None or now < self.waits_until:
            return False
        self.waits_until = None
        return self._resend
