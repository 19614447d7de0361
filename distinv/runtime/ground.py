"""What a server stands on: its journal, its store, and the place where snapshots are put together.

Opened at the start, and again when the server's cluster has dissolved: then what there was is set
aside, and the server is blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import define

from distinv.errors import DistinvError, PluginError, StorageError
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import MEMORY
from distinv.runtime.reconcile import reconcile
from distinv.runtime.recovery import check_not_interrupted
from distinv.runtime.set_aside import finish, is_unfinished, remembered, set_aside
from distinv.runtime.snapshots import STORE_FILE, Depot, FileDepot, MemoryDepot
from distinv.server.dissolving import Dissolved
from distinv.server.engine import Engine
from distinv.storage.api import Recovered, Storage, StorageContext
from distinv.storage.failures import disk_failure

if TYPE_CHECKING:
    from distinv.runtime.opening import Plan


@define
class Ground:
    storage: Storage
    inline: bool
    """The storage waits for nothing, and nothing is kept on disk."""
    recovered: Recovered
    machine: StateMachine
    """As it was opened: a snapshot may have taken its place in the engine since."""
    depot: Depot
    remembered: tuple[Dissolved, ...]
    """The dissolved clusters that this server has belonged to."""
    engine: Engine | None = None
    """Who uses it."""

    def close(self) -> None:
        """Closing twice is allowed."""
        machine = self.machine if self.engine is None else self.engine.machine
        try:
            machine.close()
        except StorageError:
            machine.abandon()  # what cannot be flushed any more is in the journal
        finally:
            self.storage.close()


async def open_ground(plan: Plan) -> Ground:
    """Raises StorageError, PluginError, ConfigError while a recovery of it is under way."""
    check_not_interrupted(plan.data_dir)
    with blaming("storage"):
        storage = plan.storage(StorageContext(plan.data_dir))
        try:
            return await _open_on(plan, storage)
        except BaseException:
            storage.close()
            raise


async def _open_on(plan: Plan, storage: Storage) -> Ground:
    inline = bool(getattr(storage, "in_memory", False))
    if not inline and is_unfinished(plan.data_dir):
        await anyio.to_thread.run_sync(finish, plan.data_dir)
        plan.audience.say("what it had of a dissolved cluster is set aside now")
    recovered = storage.recover() if inline else await anyio.to_thread.run_sync(storage.recover)
    check_not_interrupted(plan.data_dir)  # once more: one may have begun before the lock was taken
    _check_directory(plan, recovered)
    machine = _open_store(plan, in_memory=inline)
    try:
        depot: Depot
        if machine.path == MEMORY:
            depot = MemoryDepot(plan.config.limits)
        else:
            depot = FileDepot(plan.data_dir, plan.config.limits)
        recovered, begun = reconcile(machine, recovered, depot.installed(), plan.data_dir)
        if begun is not None:
            storage.commit([begun])
    except BaseException:
        machine.abandon()
        raise
    gone = () if machine.path == MEMORY else remembered(plan.data_dir)
    return Ground(storage, inline, recovered, machine, depot, gone)


async def begin_anew(plan: Plan, ground: Ground, dissolved: Dissolved) -> Ground:
    """Set aside all that is here, and open what is blank instead. Raises StorageError.

    A storage in memory that outlives its being closed has a method `set_aside`, which is called
    then.
    """
    ground.close()
    if not ground.inline:
        await anyio.to_thread.run_sync(set_aside, plan.data_dir, dissolved)
    elif hasattr(ground.storage, "set_aside"):
        ground.storage.set_aside()
    before = ground.remembered if ground.engine is None else ground.engine.remembered
    opened = await open_ground(plan)
    if opened.recovered.node is not None:
        opened.close()
        raise StorageError(
            f"{plan.data_dir}: the storage still holds the dissolved cluster "
            f"{dissolved.cluster_id:016x}; it keeps something outside of the data directory"
        )
    if opened.machine.path == MEMORY:
        opened.remembered = (*before, dissolved)
    return opened


def _check_directory(plan: Plan, recovered: Recovered) -> None:
    name = plan.settings.cluster_name
    if recovered.cluster_name not in (None, name):
        raise StorageError(
            f"{plan.data_dir} belongs to the cluster {recovered.cluster_name!r}, not to "
            f"{name!r}: give this server a data directory of its own"
        )
    if recovered.torn:
        plan.audience.say("the last write before the stop was torn, and is dropped")


def _open_store(plan: Plan, *, in_memory: bool) -> StateMachine:
    if in_memory:
        return StateMachine(limits=plan.config.limits)
    try:
        plan.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_failure(plan.data_dir, error) from error
    return StateMachine(str(plan.data_dir / STORE_FILE), plan.config.limits)


@contextmanager
def blaming(kind: str) -> Iterator[None]:
    """A plugin that fails in its own way is named, in one line."""
    try:
        yield
    except DistinvError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"the {kind} plugin failed at the start: {text}") from error
