"""Putting one server together: directory, store, network, engine, driver.

The data directory comes first, since that is what two servers must not share. Whatever fails
here fails before the server has said a word to anybody, as one clear line, and everything that
was opened is closed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
from attrs import frozen

from distinv.config import Config
from distinv.discovery.api import Discovery, DiscoveryContext, DiscoveryFactory
from distinv.election.api import Election, ElectionContext, ElectionFactory
from distinv.errors import DistinvError, PluginError, StorageError
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import StateMachine
from distinv.multicast.api import Multicast, MulticastContext, MulticastFactory
from distinv.runtime.driver import Driver, monotonic_us
from distinv.runtime.observers import Audience
from distinv.runtime.settings import Door, choose_door, random_id
from distinv.server.engine import Engine, Settings
from distinv.storage.api import Recovered, Storage, StorageContext, StorageFactory
from distinv.storage.failures import disk_failure
from distinv.transport.api import Address, Transport, TransportContext, TransportFactory
from distinv.wire.endpoint import Endpoint
from distinv.wire.seal import KeySeal, PlainSeal

STORE_FILE = "store.sqlite3"

_WAY_FORWARD = (
    "Keep the directory. If the other servers of the cluster run, start this one with an empty "
    "data directory: it joins as a new server and copies everything. Without them, restore the "
    "directory from a backup"
)


@frozen(kw_only=True)
class Plan:
    """Everything that is known of a server before it is opened."""

    settings: Settings
    config: Config
    data_dir: Path
    in_memory: bool
    """Nothing is written: the store is in memory as the log is."""
    key: bytes | None
    bind: str | None
    insecure: bool
    servers: tuple[Address, ...]
    election: ElectionFactory
    multicast: MulticastFactory
    discovery: DiscoveryFactory
    transport: TransportFactory
    storage: StorageFactory
    audience: Audience
    random: Random


@frozen
class Opened:
    driver: Driver
    address: Address
    """Where it is bound; the host may be 0.0.0.0."""


async def open_server(plan: Plan, stack: AsyncExitStack) -> Opened:
    """Open everything; `stack` closes it. The driver is yet to be run.

    Raises ConfigError, StorageError, PluginError.
    """
    door = await choose_door(
        plan.config.network,
        bind=plan.bind,
        has_key=plan.key is not None,
        insecure=plan.insecure,
        servers=plan.servers,
    )
    with _blaming("storage"):
        storage = plan.storage(StorageContext(plan.data_dir))
        stack.callback(storage.close)
        inline = bool(getattr(storage, "in_memory", False))
        recovered = storage.recover() if inline else await anyio.to_thread.run_sync(storage.recover)
    _check_directory(plan, recovered)
    machine = _open_store(plan, in_memory=plan.in_memory or inline)
    stack.callback(_close_store, machine)
    _check_store(machine, recovered, plan.data_dir)
    transport, discovery = await _open_network(plan, door, stack)
    host, port = transport.address
    name = plan.settings.cluster_name
    plan.audience.say(f"takes part in the cluster {name!r} on {host}:{port}")
    driver = Driver(
        engine=_make_engine(plan, recovered, machine, storage, transport, discovery),
        transport=transport,
        discovery=discovery,
        storage=storage,
        audience=plan.audience,
        config=plan.config,
        in_memory=inline,
    )
    return Opened(driver, transport.address)


# --- what lies on the disk --------------------------------------------------------------------


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


def _close_store(machine: StateMachine) -> None:
    """What cannot be flushed any more is in the journal, and is applied again."""
    try:
        machine.close()
    except StorageError:
        machine.abandon()


def _check_store(machine: StateMachine, recovered: Recovered, data_dir: Path) -> None:
    """The store holds nothing that the journal does not: else something is missing."""
    index = machine.position.index
    if index == 0:
        return
    if index > len(recovered.entries):
        raise StorageError(
            f"{data_dir}: the store is at log entry {index}, but the journal ends at "
            f"{len(recovered.entries)}: a part of the journal is missing. {_WAY_FORWARD}."
        )
    if recovered.entries[index - 1].hash != machine.position.hash:
        raise StorageError(
            f"{data_dir}: the store and the journal tell different stories of log entry {index}: "
            f"they are not of one server. {_WAY_FORWARD}."
        )


# --- the network ------------------------------------------------------------------------------


async def _open_network(
    plan: Plan, door: Door, stack: AsyncExitStack
) -> tuple[Transport, Discovery]:
    with _blaming("transport"):
        transport = await plan.transport(TransportContext(door.network, server=True))
    stack.push_async_callback(_close_shielded, transport)
    context = DiscoveryContext(
        network=door.network,
        servers=plan.servers,
        loopback_only=door.loopback_only,
        server=True,
    )
    with _blaming("discovery"):
        discovery = await plan.discovery(context)
    stack.push_async_callback(_close_shielded, discovery)
    return transport, discovery


async def _close_shielded(resource: Transport | Discovery) -> None:
    with anyio.CancelScope(shield=True):
        await resource.aclose()


# --- the engine -------------------------------------------------------------------------------


def _make_engine(
    plan: Plan,
    recovered: Recovered,
    machine: StateMachine,
    storage: Storage,
    transport: Transport,
    discovery: Discovery,
) -> Engine:
    def make_election(context: ElectionContext) -> Election:
        with _blaming("election"):
            return plan.election(context)

    def make_multicast(context: MulticastContext) -> Multicast:
        with _blaming("multicast"):
            return plan.multicast(context)

    node_id = recovered.node or random_id()
    config = plan.config
    endpoint = Endpoint(
        self_id=node_id,
        boot=random_id(),
        seal=PlainSeal() if plan.key is None else KeySeal(plan.key),
        random=plan.random,
        timing=config.timing,
        limits=config.limits,
        payload_bytes=transport.payload_bytes,
    )
    return Engine(
        self_id=node_id,
        settings=plan.settings,
        config=config,
        recovered=recovered,
        machine=machine,
        check_command=decode_command_untrusted,
        read_log=storage.read,
        endpoint=endpoint,
        election=make_election,
        multicast=make_multicast,
        targets=discovery.targets,
        random=plan.random,
        now=monotonic_us(),
    )


@contextmanager
def _blaming(kind: str) -> Iterator[None]:
    """A plugin that fails in its own way is named, in one line."""
    try:
        yield
    except DistinvError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"the {kind} plugin failed at the start: {text}") from error
