"""One campaign: real servers, clients that record everything, faults, and a verdict.

    outcome = run_campaign(Settings(servers=5, duration_s=120, seed=7))
    assert outcome.verdict == "ok", outcome.problems

Whatever happens, no process, no namespace and no mount is left; the directory with the servers'
data and logs, and the history, stay only when something is wrong.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import SystemRandom

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from distinv.config import Limits
from distinv.errors import ConfigError
from distinv.plugins.manager import Plugins
from distinv.testing.processes import ServerFailed, ServerProcesses
from distinv.testing.torture import plan
from distinv.testing.torture.campaign_server import program_with
from distinv.testing.torture.checker import Judgement, check
from distinv.testing.torture.disk import SmallDisk
from distinv.testing.torture.evidence import Problem
from distinv.testing.torture.history import Call, write_history
from distinv.testing.torture.namespaces import Namespaces
from distinv.testing.torture.nemesis import Nemesis
from distinv.testing.torture.plan import Kind
from distinv.testing.torture.privileges import NotPermitted, remove_leftovers
from distinv.testing.torture.recorder import Recorder
from distinv.testing.torture.shop import Habits, Shop, ShopFailed
from distinv.testing.torture.wires import SteeredWires, Wires
from distinv.transport.faulty import Cuts
from distinv.wire.seal import new_key

_DISK_BYTES = 128 << 20
_DISK_BYTES_PER_S = 1 << 20
"""What the servers write is far less: a disk that fills up does so on purpose only."""
_QUIET_S = 1.0
"""Clients go on for so long after everything has healed."""
_NO_DISK = "disk_full"
_NEED_OTHERS = (Kind.LEAVE, Kind.DISK_LOST)
"""With one or two servers one votes: without it, or its disk, nothing is left."""


@frozen(kw_only=True)
class Settings:
    """What `distinv torture` is told. Seconds are the user's; see the options' help."""

    duration_s: float = 60.0
    leader_kills: int = 0
    """Go on until so many, however long that takes."""
    servers: int = 5
    clients: int = 3
    callers: int = 4
    think_us: int = 30_000
    election: str = "bully"
    multicast: str = "fanout"
    server_backend: str = "asyncio"
    loss: float = 0.0
    sealed: bool = False
    namespaces: bool = False
    kinds: tuple[Kind, ...] = plan.ALL
    seed: int = field(factory=lambda: SystemRandom().randrange(1_000_000))
    plant: str = ""
    """A bug of `simulator.planted` to break the servers with: the campaign must fail."""
    history: Path | None = None
    """Where to write what the clients were told; otherwise it stays only when it is wrong."""


@define
class Outcome:
    """What a campaign has come to."""

    settings: Settings
    recorder: Recorder = field(factory=Recorder)
    faults: Counter[str] = field(factory=Counter)
    left_out: dict[str, str] = field(factory=dict)
    """Kinds of faults that this machine or user does not permit, and why."""
    skipped: str = ""
    """Why the whole campaign was not permitted."""
    problems: list[Problem] = field(factory=list)
    judgement: Judgement | None = None
    seconds: float = 0.0
    write_gap_us: int | None = None
    """The longest time without an answer; None when it ended before that was known."""
    directory: Path | None = None
    """What was kept for inspection."""
    interrupted: int = 0
    """The signal that ended it."""

    @property
    def calls(self) -> list[Call]:
        return self.recorder.calls

    @property
    def verdict(self) -> str:
        """ok, failed, skipped or interrupted."""
        if self.skipped:
            return "skipped"
        if self.interrupted:
            return "interrupted"
        return "failed" if self.problems else "ok"


Say = Callable[[str], None]
"""Told what happens, line by line."""


def run_campaign(
    settings: Settings,
    run_on: Callable[[Callable[[], Awaitable[None]]], None] = anyio.run,
    say: Say = lambda line: None,
) -> Outcome:
    """Run one campaign and judge it; `run_on` runs the event loop.

    Raises ConfigError and PluginError for settings that cannot be. Call it from the main thread:
    SIGTERM and SIGINT end it in good order.
    """
    outcome = Outcome(settings)
    _check_settings(settings)
    plugins = Plugins(())
    plugins.election(settings.election)
    plugins.multicast(settings.multicast)
    if settings.history is not None:
        _check_writable(settings.history)
    directory = Path(tempfile.mkdtemp(prefix="distinv-torture-"))
    with ExitStack() as stack:
        try:
            stack.enter_context(_terminable())
            campaign = _Campaign(outcome, directory, stack, say)
            run_on(campaign.run)
        except NotPermitted as reason:
            outcome.skipped = str(reason)
        except _Interrupted as interrupted:
            outcome.interrupted = interrupted.number
        finally:
            stack.close()
            _keep(outcome, directory)
    return outcome


class _Interrupted(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Campaign:
    """The course of one campaign."""

    def __init__(self, outcome: Outcome, directory: Path, stack: ExitStack, say: Say) -> None:
        """What it makes in the system is removed when `stack` is closed. Raises NotPermitted."""
        settings = outcome.settings
        self._outcome = outcome
        self._settings = settings
        self._stack = stack
        self._started = time.monotonic()
        self._log = stack.enter_context((directory / "faults.log").open("w", buffering=1))
        self._say_aloud = say
        self._namespaces: Namespaces | None = None
        if settings.namespaces:
            self._namespaces = stack.enter_context(Namespaces(settings.servers))
            stack.enter_context(self._namespaces.entered())
        self._client_cuts = Cuts()
        self._servers = ServerProcesses(
            settings.servers,
            cluster="torture",
            directory=directory,
            election=settings.election,
            multicast=settings.multicast,
            backend=settings.server_backend,
            key=new_key() if settings.sealed or settings.namespaces else None,
            loss=settings.loss,
            seed=settings.seed,
            steered=not settings.namespaces,
            places=self._namespaces.places if self._namespaces else None,
            program=program_with(settings.plant),
        )
        self._wires: Wires = self._namespaces or SteeredWires(self._servers, self._client_cuts)
        self._disk = self._mount_disk(directory) if Kind.DISK_FULL in settings.kinds else None

    def _mount_disk(self, directory: Path) -> SmallDisk | None:
        remove_leftovers()
        size_bytes = _DISK_BYTES + int(self._settings.duration_s) * _DISK_BYTES_PER_S
        try:
            disk = SmallDisk.mount(directory / f"server-{self._settings.servers}", size_bytes)
        except NotPermitted as reason:
            self._outcome.left_out[_NO_DISK] = str(reason)
            return None
        self._stack.callback(lambda: disk.close(keep=bool(self._outcome.problems)))
        return disk

    async def run(self) -> None:
        outcome = self._outcome
        try:
            await _until_signal(self._play)
        except ServerFailed as failure:
            outcome.problems.append(Problem("servers", str(failure)))
        except ShopFailed as failure:
            outcome.problems.append(Problem("progress", str(failure)))
        except _Interrupted:
            raise
        except Exception as error:  # a bug of the campaign's own is no reason to lose the evidence
            text = "".join(traceback.format_exception(error))
            outcome.problems.append(Problem("campaign", text))
        finally:
            outcome.seconds = time.monotonic() - self._started
        self._say("checking what the clients were told")
        outcome.judgement = check(outcome.calls)
        outcome.problems.extend(outcome.judgement.problems)

    async def _play(self) -> None:
        self._say(f"starting {self._settings.servers} servers, seed {self._settings.seed}")
        async with self._servers as servers:
            shop = self._open_shop(servers)
            await shop.open()
            nemesis = Nemesis(servers, self._wires, shop.recorder, self._disk, self._say)
            self._outcome.faults = nemesis.counts
            async with _group() as group:
                group.start_soon(shop.run)
                shop.recorder.start_clock()
                await self._torture(nemesis)
                self._say("everything heals")
                await nemesis.heal()
                await anyio.sleep(_QUIET_S)
                self._outcome.write_gap_us = shop.recorder.stop_clock()
                shop.close()
            self._say("the clients are done; reading the books")
            await shop.audit()
            await self._compare_servers(servers)
            nemesis.count_snapshots()

    def _open_shop(self, servers: ServerProcesses) -> Shop:
        settings = self._settings
        return Shop(
            self._outcome.recorder,
            lambda name: servers.client(
                name, cuts=None if settings.namespaces else self._client_cuts
            ),
            settings.seed,
            Habits(settings.clients, settings.callers, settings.think_us),
        )

    async def _torture(self, nemesis: Nemesis) -> None:
        """Both schedules side by side, until it is time and leaders enough have died."""
        settings = self._settings
        kinds = self._permitted()
        hurry = kinds == (Kind.LEADER_KILL,)
        until = time.monotonic() + settings.duration_s
        kills = plan.leader_kills(settings.seed, settings.servers, hurry=hurry)
        troubles = plan.troubles(settings.seed, settings.servers, kinds)
        async with _group() as group:
            group.start_soon(nemesis.guard)
            if Kind.LEADER_KILL in kinds:
                group.start_soon(nemesis.kill_leaders, kills)
            group.start_soon(nemesis.trouble, troubles)
            while time.monotonic() < until or (
                nemesis.counts[Kind.LEADER_KILL] < settings.leader_kills
            ):
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    def _permitted(self) -> tuple[Kind, ...]:
        impossible = [Kind.LOSS] if self._settings.namespaces else []
        if self._disk is None:
            impossible.append(Kind.DISK_FULL)
        if self._settings.servers < Limits().voters_min:
            impossible += _NEED_OTHERS
            reason = "with so few servers the one that votes may be the only one with everything"
            self._outcome.left_out |= dict.fromkeys(_NEED_OTHERS, reason)
        return tuple(kind for kind in self._settings.kinds if kind not in impossible)

    async def _compare_servers(self, servers: ServerProcesses) -> None:
        statuses = await servers.wait_converged()
        voters = {each.voters for each in statuses}
        if any(len(each) % 2 == 0 or len(each) > Limits().voters_max for each in voters):
            text = f"voters have to be odd in number, and few: {sorted(map(len, voters))}"
            self._outcome.problems.append(Problem("servers", text))
        found = [
            {
                "name": each.name,
                "seq": each.seq,
                "digest": each.digest,
                "state_digest": each.state_digest,
            }
            for each in statuses
        ]
        answer = {"outcome": "value", "servers": found}
        self._outcome.recorder.note("auditor", "servers", answer)

    def _say(self, text: str) -> None:
        line = f"{time.monotonic() - self._started:8.3f} {text}"
        self._log.write(line + "\n")
        self._say_aloud(line)


# --- how it ends ------------------------------------------------------------------------------


def _check_settings(settings: Settings) -> None:
    """Raises ConfigError for a campaign that could not start, or would never end."""
    servers_max = Limits().servers_max
    if not 1 <= settings.servers <= servers_max:
        raise ConfigError(f"there cannot be {settings.servers} servers: 1 to {servers_max}")
    if settings.leader_kills and Kind.LEADER_KILL not in settings.kinds:
        raise ConfigError(
            f"no leader would be killed: leader kills need the fault {Kind.LEADER_KILL}"
        )


def _check_writable(path: Path) -> None:
    """Before the campaign, not after it. Raises ConfigError."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"the history {path} cannot be written: {error.strerror}") from error


def _keep(outcome: Outcome, directory: Path) -> None:
    """Write the history where it is wanted; keep everything when something is wrong."""
    if outcome.settings.history is not None:
        write_history(outcome.settings.history, outcome.calls)
    if outcome.verdict == "failed":
        write_history(directory / "history.jsonl", outcome.calls)
        outcome.directory = directory
    else:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _group() -> AsyncIterator[TaskGroup]:
    """A task group whose first failure is raised as it is, and not within a group."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise _first_of(errors) from None


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_signal(play: Callable[[], Awaitable[None]]) -> None:
    """Play; SIGTERM and SIGINT end it, and everything in it is cleaned up first."""
    received: list[int] = []
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with _group() as group:

            async def watch(signals: AsyncIterator[signal.Signals] = signals) -> None:
                async for signalled in signals:
                    received.append(signalled)
                    group.cancel_scope.cancel()

            group.start_soon(watch)
            await play()
            group.cancel_scope.cancel()
    if received:
        raise _Interrupted(received[0])


@contextmanager
def _terminable() -> Iterator[None]:
    """Outside of the event loop too SIGTERM is an exception, which cleans up."""

    def stop(number: int, frame: object) -> None:
        raise _Interrupted(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
