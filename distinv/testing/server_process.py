"""One real server in a process of its own. See `distinv.testing.processes`."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
from attrs import frozen

from distinv.errors import DistinvError
from distinv.testing.steering import FaultControl
from distinv.transport.api import Address
from distinv.transport.faulty import STEERING_VARIABLE

_POLL_S = 0.02
PATIENCE_S = 30.0
"""A start on a busy machine, an election and a catch-up take seconds; more is a fault."""
_STOP_S = 5.0
"""How long a server may take to hand leadership over and stop, before it is killed."""


class ServerFailed(DistinvError):
    """A server process ended by itself, or did not do in time what it should."""

    code = "server_failed"


@frozen
class Place:
    """Where a server runs."""

    prefix: tuple[str, ...] = ()
    """What is put before its command, such as `ip netns exec NAME`."""
    bind: str | None = None
    """Where it listens; None for what `distinv serve` does by itself."""


class ServerProcess:
    """One server: its name, its directory, and its process while it runs."""

    def __init__(
        self,
        name: str,
        directory: Path,
        command: Sequence[str],
        env: dict[str, str],
        place: Place,
        *,
        steered: bool = False,
    ) -> None:
        self.name = name
        self.place = place
        self.data_dir = directory / name
        self.faults = FaultControl(directory / f"{name}.faults")
        """What goes wrong on its network, if it is steered."""
        self._output = directory / f"{name}.out"
        self._log = directory / f"{name}.log"
        bind = () if place.bind is None else ("--bind", place.bind)
        data = ("--name", name, "--data", str(self.data_dir))
        self._command = (*place.prefix, *command, *bind, *data)
        self._env = env | ({STEERING_VARIABLE: str(self.faults.path)} if steered else {})
        self._process: subprocess.Popen[bytes] | None = None
        """What was launched, and not ended by us since."""
        self.kills = 0

    @property
    def launched(self) -> bool:
        """It was launched, and nobody here has killed or stopped it since."""
        return self._process is not None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    @property
    def log(self) -> str:
        """Everything it has logged so far, over all its lives."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    @property
    def address(self) -> Address | None:
        """Where it listens; None before it has said so."""
        for line in self._said():
            if "address" in line:
                host, port = line["address"]
                return (host, port)
        return None

    @property
    def is_ready(self) -> bool:
        """It has known a leader since it was started."""
        return any(line.get("event") == "ready" for line in self._said())

    def launch(self) -> None:
        """Start the process without waiting. It keeps its data directory."""
        if self.running:
            raise ServerFailed(f"{self.name} is running already")
        self.end()
        with self._output.open("wb") as output, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # closed by our end, whatever ends us
                stdout=output,
                stderr=log,
                env=self._env,
                start_new_session=True,  # the terminal's Ctrl-C is ours to handle
            )

    async def start(self, timeout: float = PATIENCE_S) -> None:
        """Start it and wait until it knows a leader. Raises ServerFailed."""
        self.launch()
        await self.wait_ready(timeout)

    async def wait_ready(self, timeout: float = PATIENCE_S) -> None:
        """Wait until it knows a leader. Raises ServerFailed."""

        def ready() -> bool:
            if self._process is None:
                raise ServerFailed(f"{self.name} has not been launched")
            self.check()
            return self.is_ready

        await wait_until(ready, timeout, lambda: f"not ready: {self.describe()}")

    def describe(self) -> str:
        """Its name, and the last that it said."""
        return f"{self.name} ({self._last_line()})"

    @property
    def exit_status(self) -> int | None:
        """How it ended by itself, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def check(self) -> None:
        """Raise ServerFailed when it was launched and has ended by itself."""
        status = self.exit_status
        if status is not None:
            raise ServerFailed(f"{self.name} ended with status {status}: {self._last_line()}")

    def pause(self) -> None:
        """SIGSTOP: it stands still, and nobody is told. A process that has ended stays so."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # does nothing when it has ended

    async def wait_ended(self, timeout: float = PATIENCE_S) -> int | None:
        """Wait until it ends by itself; returns its exit status. Raises ServerFailed."""
        await wait_until(lambda: not self.running, timeout, f"{self.name} goes on")
        return await self.stop()

    async def kill(self) -> None:
        """SIGKILL: it loses whatever it had not synced."""
        if self.running:
            self.kills += 1
        await self.stop(0)

    async def stop(self, timeout: float = _STOP_S) -> int | None:
        """SIGTERM, and SIGKILL when that takes longer than `timeout` seconds.

        Returns the exit status, negative for a signal; None when there was no process.
        """
        process = self._process
        if process is None:
            return None
        if timeout > 0 and process.poll() is None:
            process.terminate()
            self.resume()
            with anyio.move_on_after(timeout):
                while process.poll() is None:
                    await anyio.sleep(_POLL_S)
        self.end()
        return process.returncode

    def end(self) -> None:
        """Kill it now, without an event loop; the kernel takes no longer than a moment."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _said(self) -> list[dict[str, Any]]:
        """The JSON lines of the present process, but for one that is not whole yet."""
        if self._process is None:
            return []
        text = self._output.read_text("utf-8", "replace")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1:] == "\n"]

    def _last_line(self) -> str:
        lines = self.log.strip().splitlines()
        return lines[-1] if lines else "it said nothing"


async def wait_until(
    condition: Callable[[], Any], timeout: float, complaint: str | Callable[[], str]
) -> None:
    """Look again and again; `condition` may be asynchronous. Raises ServerFailed."""
    with anyio.move_on_after(timeout):
        while True:
            holds = condition()
            if not isinstance(holds, bool):
                holds = await holds
            if holds:
                return
            await anyio.sleep(_POLL_S)
    told = complaint if isinstance(complaint, str) else complaint()
    raise ServerFailed(f"{told} after {timeout:g} s")
