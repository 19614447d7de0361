"""Steering the faults of a network while the servers run, from outside their processes.

    async with ServerProcesses(3, steered=True) as servers:
        leader = await servers.leader()
        leader.faults.cut(servers["server-2"].address)  # neither hears the other
        leader.faults.set(loss=0.2, delay=0.1)
        …
        servers.heal()

A `FaultControl` writes the file that a transport `faulty` watches (distinv/transport/faulty.py);
anything that runs with that transport can be steered by it, also a program of your own::

    control = FaultControl("/run/till-faults.json")
    InventoryClient("shop", transport=faulty(open_udp, steering=control.path))

What is written holds for every datagram that is sent or received later than 10 ms after.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from distinv.config import FaultSettings
from distinv.transport.api import Address
from distinv.transport.faulty import EVERYBODY, parse_cut, parse_steering

__all__ = ["EVERYBODY", "FaultControl"]


class FaultControl:
    """The faults of one process's network: those that hold now are what was said so far."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` is the file to write; its directory exists. Nothing is written yet."""
        self.path = Path(path)
        self._said: dict[str, Any] = {}

    def set(
        self,
        *,
        loss: float | None = None,
        duplicate: float | None = None,
        delay: float | None = None,
        delay_max_us: int | None = None,
    ) -> None:
        """Change what is given: three probabilities, and microseconds. See `FaultSettings`.

        Raises ConfigError for what is no probability, and changes nothing then.
        """
        given = {
            "loss": loss,
            "duplicate": duplicate,
            "delay": delay,
            "delay_max_us": delay_max_us,
        }
        self._write(self._said | {name: what for name, what in given.items() if what is not None})

    def cut(self, *addresses: Address) -> None:
        """Nothing is sent to these addresses any more, and nothing heard of them."""
        self._add("cut", addresses)

    def cut_to(self, *addresses: Address) -> None:
        """Nothing is sent to these addresses any more."""
        self._add("cut_to", addresses)

    def cut_from(self, *addresses: Address) -> None:
        """Nothing is heard of these addresses any more."""
        self._add("cut_from", addresses)

    def isolate(self) -> None:
        """Cut everybody."""
        self.cut(EVERYBODY)

    def heal(self) -> None:
        """Mend all cuts. Loss, duplicates and delay stay as they are."""
        names = ("cut", "cut_to", "cut_from")
        self._write({name: what for name, what in self._said.items() if name not in names})

    def reset(self) -> None:
        """No cuts, and the faults that the process was started with."""
        self._write({})

    def _add(self, name: str, addresses: tuple[Address, ...]) -> None:
        cut = self._said.get(name, []) + [_text(address) for address in addresses]
        for text in cut:
            parse_cut(name, text)
        self._write(self._said | {name: list(dict.fromkeys(cut))})

    def _write(self, said: dict[str, Any]) -> None:
        text = json.dumps(said)
        parse_steering(text, FaultSettings())
        # Replaced as a whole: the transport never reads half of it.
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.write_text(text, "utf-8")
        fresh.replace(self.path)
        self._said = said


def _text(address: Address) -> str:
    return address[0] if address == EVERYBODY else f"{address[0]}:{address[1]}"
