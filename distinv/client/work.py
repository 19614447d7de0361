"""What the router tells the rest of the client, and asks it."""

from __future__ import annotations

from typing import Protocol


class Work(Protocol):
    """All calls together, to whoever finds servers for them."""

    @property
    def owed(self) -> bool:
        """The home owes an answer."""
        ...

    @property
    def wanted(self) -> bool:
        """Somebody waits for something."""
        ...

    @property
    def bound(self) -> bool:
        """A session is open, and it means nothing in another cluster."""
        ...

    def rewind(self, now: int, *, pause: bool = False) -> None:
        """What was under way has to be sent again, after the present pause."""
        ...

    def silent(self, now: int) -> None:
        """The same, because the home did not answer."""
        ...

    def resume(self) -> None:
        """There is a leader, or another server: no need to hold back."""
        ...

    def deny(self, now: int) -> None:
        """No server lets this client in: end what waits."""
        ...
