"""Putting one server together: directory, store, network, engine, driver.

The data directory comes first, since that is what two servers must not share. Whatever fails
here fails before the server has said a word to anybody, as one clear line, and everything that
was opened is closed again.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import anyio
from attrs import define, frozen

from distinv.config import Config
from distinv.discovery.api import Discovery, DiscoveryContext, DiscoveryFactory
from distinv.election.api import Election, ElectionContext, ElectionFactory
from distinv.entry import NodeId
from distinv.inventory.commands import decode_command_untrusted
from distinv.multicast.api import Multicast, MulticastContext, MulticastFactory
from distinv.runtime.driver import Driver, monotonic_us
from distinv.runtime.ground import Ground, begin_anew, blaming, open_ground
from distinv.runtime.observers import Audience
from distinv.runtime.roll_call import call_the_roll
from distinv.runtime.settings import Door, choose_door, random_id
from distinv.server.dissolving import Dissolved
from distinv.server.engine import Engine
from distinv.server.roll_call import RollCall
from distinv.server.settings import Settings
from distinv.storage.api import StorageFactory
from distinv.transport.api import Address, Transport, TransportContext, TransportFactory
from distinv.wire.endpoint import Endpoint
from distinv.wire.seal import KeySeal, PlainSeal


@frozen(kw_only=True)
class Plan:
    """Everything that is known of a server before it is opened."""

    settings: Settings
    config: Config
    data_dir: Path
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

    Raises ConfigError, StorageError (IdentityInUse when another process runs under the identity
    that the directory holds), PluginError.
    """
    door = await choose_door(
        plan.config.network,
        bind=plan.bind,
        has_key=plan.key is not None,
        insecure=plan.insecure,
        servers=plan.servers,
    )
    holder = _Holder(await open_ground(plan))
    stack.callback(holder.close)
    transport, discovery = await _open_network(plan, door, stack)
    host, port = transport.address
    name = plan.settings.cluster_name
    boot, found = random_id(), holder.ground.recovered.node
    if found is not None:
        roll = _make_roll_call(plan, found, boot, transport, discovery)
        await call_the_roll(roll, transport, discovery)
    plan.audience.say(f"takes part in the cluster {name!r} on {host}:{port}")
    engine = _make_engine(plan, holder.ground, boot, transport, discovery)

    async def renew(dissolved: Dissolved) -> Ground:
        ground = holder.ground = await begin_anew(plan, holder.ground, dissolved)
        _make_engine(plan, ground, random_id(), transport, discovery, joins=dissolved.successor)
        return ground

    driver = Driver(
        engine=engine,
        transport=transport,
        discovery=discovery,
        storage=holder.ground.storage,
        audience=plan.audience,
        config=plan.config,
        depot=holder.ground.depot,
        renew=renew,
        in_memory=holder.ground.inline,
    )
    return Opened(driver, transport.address)


@define
class _Holder:
    """Closes what the server stands on at the end: another one than at first, perhaps."""

    ground: Ground

    def close(self) -> None:
        self.ground.close()


# --- the network ------------------------------------------------------------------------------


async def _open_network(
    plan: Plan, door: Door, stack: AsyncExitStack
) -> tuple[Transport, Discovery]:
    with blaming("transport"):
        transport = await plan.transport(TransportContext(door.network, server=True))
    stack.push_async_callback(_close_shielded, transport)
    context = DiscoveryContext(
        network=door.network,
        servers=plan.servers,
        loopback_only=door.loopback_only,
        server=True,
    )
    with blaming("discovery"):
        discovery = await plan.discovery(context)
    stack.push_async_callback(_close_shielded, discovery)
    return transport, discovery


async def _close_shielded(resource: Transport | Discovery) -> None:
    with anyio.CancelScope(shield=True):
        await resource.aclose()


def _make_endpoint(plan: Plan, node: NodeId, boot: int, transport: Transport) -> Endpoint:
    return Endpoint(
        self_id=node,
        boot=boot,
        seal=PlainSeal() if plan.key is None else KeySeal(plan.key),
        random=plan.random,
        timing=plan.config.timing,
        limits=plan.config.limits,
        payload_bytes=transport.payload_bytes,
    )


def _make_roll_call(
    plan: Plan, node: NodeId, boot: int, transport: Transport, discovery: Discovery
) -> RollCall:
    """For an identity that lies on the disk: it may have been copied."""
    stranger, stranger_boot = random_id(), random_id()
    return RollCall(
        node=node,
        boot=boot,
        make_endpoint=lambda: _make_endpoint(plan, stranger, stranger_boot, transport),
        targets=discovery.targets,
        timing=plan.config.timing,
        limits=plan.config.limits,
        random=plan.random,
        tell=plan.audience.say,
        now=monotonic_us(),
    )


# --- the engine -------------------------------------------------------------------------------


def _make_engine(
    plan: Plan,
    ground: Ground,
    boot: int,
    transport: Transport,
    discovery: Discovery,
    *,
    joins: int = 0,
) -> Engine:
    def make_election(context: ElectionContext) -> Election:
        with blaming("election"):
            return plan.election(context)

    def make_multicast(context: MulticastContext) -> Multicast:
        with blaming("multicast"):
            return plan.multicast(context)

    node_id = ground.recovered.node or random_id()
    ground.engine = Engine(
        self_id=node_id,
        settings=plan.settings,
        config=plan.config,
        recovered=ground.recovered,
        machine=ground.machine,
        check_command=decode_command_untrusted,
        read_log=ground.storage.read,
        endpoint=_make_endpoint(plan, node_id, boot, transport),
        election=make_election,
        multicast=make_multicast,
        targets=discovery.targets,
        random=plan.random,
        now=monotonic_us(),
        make_snapshot=ground.depot.maker,
        pieces=ground.depot,
        remembered=ground.remembered,
        joins=joins,
    )
    return ground.engine
