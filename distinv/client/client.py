"""`InventoryClient`: the inventory for an application, wherever in the network it is kept.

    async with InventoryClient("shop", key="shop.key") as inventory:
        await inventory.receive({"85123A": 100}, reference="PO-7")
        receipt = await inventory.ship({"85123A": 6}, reference="536365")

It finds the servers by itself, retries, and follows the leader. Every call may be made from any
task of the event loop that entered the context. Commands take effect in the order in which
they were called, each at most once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
from attrs import evolve

from distinv.client.calls import Completion
from distinv.client.driver import SECOND_US, Driver, deadline_after, monotonic_us
from distinv.client.session import ClientSession
from distinv.client.status import ClusterStatus, KnownServer, cluster_status, known_servers
from distinv.config import Config, lan
from distinv.discovery.api import DiscoveryContext, DiscoveryFactory
from distinv.errors import ConfigError, InvalidRequest, NotFound
from distinv.inventory import calls
from distinv.inventory.calls import Ask, Call
from distinv.inventory.commands import decode_outcome, parse_session_key, session_key
from distinv.inventory.queries import Fate
from distinv.inventory.store import CommandOptions, ReadOptions
from distinv.inventory.values import Refusal, Resolution
from distinv.model import (
    MAIN,
    AttributeValue,
    Cursor,
    Digest,
    Item,
    LedgerEntry,
    Level,
    Lines,
    Location,
    Page,
    Receipt,
)
from distinv.plugins.manager import Plugins
from distinv.runtime.settings import (
    choose_door,
    parse_addresses,
    random_id,
    randomness,
    text_name,
)
from distinv.transport.api import Address, TransportContext, TransportFactory
from distinv.wire.endpoint import Endpoint
from distinv.wire.events import Notice
from distinv.wire.messages import StatusReply
from distinv.wire.seal import KeySeal, PlainSeal, load_key

T = TypeVar("T")

KEY_VARIABLE = "DISTINV_KEY"
PAGE_ROWS = 1_000


class InventoryClient:
    """A client of the cluster `cluster_name`: an async context manager, entered once.

    Every command also takes `reason`, `reference`, `note`, `occurred_at`, `idempotency_key` and
    `timeout` (seconds); every question `read`, `min_seq` and `timeout`. A question with
    `read="linearizable"` sees everything acknowledged before it was asked; with `read="local"`
    one server answers at once from what it has, which is at least at `min_seq`.

    A call ends in its value, in what the inventory refuses (`Rejected`, `NotFound`,
    `InvalidRequest`), in `Unavailable` (certainly not applied), or in `OutcomeUnknown`, whose
    `idempotency_key` is for `resolve`. While no server can be reached because of its key or
    version, that is `PermissionDenied` or `VersionMismatch`.
    """

    def __init__(
        self,
        cluster_name: str,
        *,
        key: bytes | str | os.PathLike[str] | None = None,
        servers: Iterable[str | Address] | None = None,
        plugins: Iterable[object] = (),
        name: str | None = None,
        timeout: float | None = None,
        discovery: str | DiscoveryFactory | None = None,
        transport: str | TransportFactory = "udp",
        config: Config | None = None,
        insecure: bool = False,
        seed: int | None = None,
    ) -> None:
        """What is not given has a working default.

        `key`: the cluster key, 32 bytes or the file that holds it, else what the environment's
        DISTINV_KEY names; without one only servers on this machine are found, unless `insecure`.
        `servers`: addresses ("HOST:PORT") to ask instead of looking for servers. `name`: the
        actor in the ledger. `timeout`: seconds that a call may take, 10 by default. `discovery`
        and `transport` name a plugin, or are a factory. `seed` makes what is random
        reproducible, but for the ids and the session.

        Raises ConfigError and PluginError.
        """
        self._config = config or lan()
        limits = self._config.limits
        self._cluster_name = text_name("a cluster's name", cluster_name, limits)
        self._name = "" if name is None else text_name("a client's name", name, limits)
        self._key = load_key(os.environ.get(KEY_VARIABLE) if key is None else key)
        self._insecure = insecure
        self._servers = parse_addresses(servers or (), self._config.network)
        self._timeout = self._config.timing.client_deadline_us / SECOND_US
        if timeout is not None:
            self._timeout = self._seconds(timeout)
        registry = Plugins(plugins)
        self._discovery = registry.discovery(discovery or ("static" if self._servers else "beacon"))
        self._transport = registry.transport(transport)
        self._random = randomness(seed)
        self._stack = AsyncExitStack()
        self._driver: Driver | None = None
        self._left = False

    # --- the context --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the network. Servers are looked for meanwhile; nothing waits for them.

        Raises ConfigError for an address that cannot be had.
        """
        if self._driver is not None:
            raise ConfigError("an InventoryClient is entered once; make another one")
        async with AsyncExitStack() as stack:
            self._driver = await self._open(stack)
            self._stack = stack.pop_all()
        self._driver.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the calls that are still open in other tasks, and close the network.

        What the body raised is its own affair: it goes on as it is, and in no group.
        """
        self._left = True
        if self._driver is not None:
            self._driver.stop()
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> Driver:
        config = self._config
        door = await choose_door(
            evolve(config.network, port=0),
            bind=None,
            has_key=self._key is not None,
            insecure=self._insecure,
            servers=self._servers,
        )
        transport = await self._transport(TransportContext(door.network, server=False))
        stack.push_async_callback(_close_shielded, transport)
        discovery = await self._discovery(
            DiscoveryContext(door.network, self._servers, door.loopback_only, server=False)
        )
        stack.push_async_callback(_close_shielded, discovery)
        endpoint = Endpoint(
            self_id=random_id(),
            boot=random_id(),
            seal=PlainSeal() if self._key is None else KeySeal(self._key),
            random=self._random,
            timing=config.timing,
            limits=config.limits,
            payload_bytes=transport.payload_bytes,
        )
        session = ClientSession(
            cluster_name=self._cluster_name,
            endpoint=endpoint,
            timing=config.timing,
            limits=config.limits,
            random=self._random,
            name=self._name,
            targets=discovery.targets,
            nonces=randomness(None),
        )
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        return Driver(session, transport, group)

    # --- catalogue ----------------------------------------------------------------------------

    async def put_item(
        self,
        sku: str,
        *,
        name: str | None = None,
        unit: str | None = None,
        scale: int | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        discontinued: bool | None = None,
        if_version: int | None = None,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Item:
        """Create a catalogue entry, or change what is given of it.

        `scale` says how many decimal places of `unit` a quantity counts. `if_version=0` only
        creates. Raises StaleVersion, and ItemNotEmpty for unit and scale while there is stock.
        """
        call = calls.put_item(
            sku,
            name=name,
            unit=unit,
            scale=scale,
            attributes=attributes,
            discontinued=discontinued,
            if_version=if_version,
            **options,
        )
        return await self._command(call, timeout)

    async def get_item(self, sku: str, **options: Unpack[ReadOptions]) -> Item:
        """The catalogue entry. Raises UnknownItem."""
        return await self._ask(calls.get_item(sku), options)

    async def delete_item(
        self,
        sku: str,
        *,
        if_version: int | None = None,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Remove a catalogue entry. Raises UnknownItem, ItemNotEmpty, StaleVersion."""
        return await self._command(
            calls.delete_item(sku, if_version=if_version, **options), timeout
        )

    async def list_items(
        self,
        prefix: str = "",
        after: Cursor | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Page[Item]:
        """Items whose sku begins with `prefix`, in the order of their skus."""
        return await self._ask(calls.list_items(prefix, after, limit), options)

    async def put_location(
        self,
        name: str,
        *,
        sellable: bool = True,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Location:
        """Create or change a location; nothing is sold from one that is not `sellable`."""
        return await self._command(calls.put_location(name, sellable=sellable, **options), timeout)

    async def list_locations(self, **options: Unpack[ReadOptions]) -> tuple[Location, ...]:
        """All locations, in the order of their names."""
        return await self._ask(calls.list_locations(), options)

    async def delete_location(
        self, name: str, *, timeout: float | None = None, **options: Unpack[CommandOptions]
    ) -> Receipt:
        """Remove a location. Raises UnknownLocation, ItemNotEmpty."""
        return await self._command(calls.delete_location(name, **options), timeout)

    # --- levels -------------------------------------------------------------------------------

    async def level(self, sku: str, location: str = MAIN, **options: Unpack[ReadOptions]) -> Level:
        """The stock of one sku at one location. Raises UnknownItem, UnknownLocation."""
        return await self._ask(calls.level(sku, location), options)

    async def levels(
        self, keys: Iterable[str | tuple[str, str]], **options: Unpack[ReadOptions]
    ) -> tuple[Level, ...]:
        """Levels in one consistent cut, in the order of `keys`.

        A key is a sku (at `main`) or (sku, location). Raises UnknownItem, UnknownLocation.
        """
        return await self._ask(calls.levels(keys), options)

    async def available(
        self,
        sku: str,
        *,
        locations: Sequence[str] | None = None,
        **options: Unpack[ReadOptions],
    ) -> int:
        """What may be sold, over all sellable locations or over those named of them."""
        return await self._ask(calls.available(sku, locations=locations), options)

    async def list_levels(
        self,
        prefix: str = "",
        location: str | None = None,
        below: int | None = None,
        after: Cursor | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Page[Level]:
        """Levels by sku and location; with `below`, where less than that is available."""
        return await self._ask(calls.list_levels(prefix, location, below, after, limit), options)

    async def iter_levels(
        self,
        prefix: str = "",
        location: str | None = None,
        below: int | None = None,
        **options: Unpack[ReadOptions],
    ) -> AsyncIterator[Level]:
        """All pages of `list_levels`. Each page is a consistent cut, their sequence is not."""
        after: Cursor | None = None
        while True:
            page = await self.list_levels(prefix, location, below, after, PAGE_ROWS, **options)
            for level in page:
                yield level
            after = page.next
            if after is None:
                return

    # --- stock --------------------------------------------------------------------------------

    async def receive(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Goods come in: on_hand += quantity. Raises UnknownItem, ItemDiscontinued."""
        return await self._command(calls.receive(lines, location=location, **options), timeout)

    async def ship(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Goods go out, all lines or none. Raises InsufficientStock with every shortage."""
        return await self._command(calls.ship(lines, location=location, **options), timeout)

    async def purchase(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """`ship` with the reason `sold`."""
        return await self._command(calls.purchase(lines, location=location, **options), timeout)

    async def adjust(
        self,
        lines: Lines | str,
        delta: int | None = None,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """`adjust(sku, delta)`, or lines with signed quantities: on_hand += delta.

        Raises InsufficientStock when less than what is set aside would be left.
        """
        call = calls.adjust(lines, delta, location=location, **options)
        return await self._command(call, timeout)

    async def set_on_hand(
        self,
        sku: str,
        quantity: int,
        *,
        location: str = MAIN,
        if_version: int | None = None,
        if_on_hand: int | None = None,
        force: bool = False,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """on_hand = quantity, if it still is what the caller saw, or by `force=True`.

        Give exactly one of the three. Raises StaleVersion with the current level, and
        InsufficientStock below what is set aside.
        """
        call = calls.set_on_hand(
            sku,
            quantity,
            location=location,
            if_version=if_version,
            if_on_hand=if_on_hand,
            force=force,
            **options,
        )
        return await self._command(call, timeout)

    async def transfer(
        self,
        lines: Lines,
        source: str,
        destination: str,
        *,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Move goods from one location to another. Raises InsufficientStock at the source."""
        return await self._command(calls.transfer(lines, source, destination, **options), timeout)

    async def execute(
        self,
        ops: Iterable[Call[Any]],
        *,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Several `distinv.inventory.calls` as one command, all or nothing.

        Raises the first refusal.
        """
        return await self._command(calls.execute(ops, **options), timeout)

    # --- looking back -------------------------------------------------------------------------

    async def ledger(
        self,
        *,
        sku: str | None = None,
        location: str | None = None,
        reference: str | None = None,
        since: int | datetime | None = None,
        after: Cursor | int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        **options: Unpack[ReadOptions],
    ) -> Page[LedgerEntry]:
        """What happened, by seq. `since` is a seq or a time, `after` a page's `next` or a seq."""
        ask = calls.ledger(
            sku=sku,
            location=location,
            reference=reference,
            since=since,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )
        return await self._ask(ask, options)

    async def digest(self, **options: Unpack[ReadOptions]) -> Digest:
        """The fingerprint of all stock: equal wherever the stock is equal."""
        return await self._ask(calls.digest(), options)

    async def resolve(self, key: str, *, timeout: float | None = None) -> Receipt | Refusal | None:
        """What became of the command with this key, the caller's own or an error's.

        The receipt; the refusal, as a value; or None: it had no effect (for a key of the
        caller's own: so far, send it again with the key). An undecided command of another
        client is decided by closing that client's session. Raises OutcomeUnknown when nothing
        is known of it any more.
        """
        deadline = deadline_after(self._seconds(timeout))
        driver, session = self._require_driver(), self._require_driver().session
        own = parse_session_key(key) if isinstance(key, str) else None
        call = None if own is None else session.outcome_of(*own, deadline)
        if call is not None:
            outcome = _bytes_of(await driver.end_of(call))
            return Resolution(key, Fate.DECIDED, 0, decode_outcome(outcome)).conclude()
        ask = calls.resolve(key)
        found = await self._ask_until(ask, deadline)
        if found.fate is Fate.UNDECIDED:
            now = monotonic_us()
            await driver.end_of(session.end_session(found.session, now, deadline))
            found = await self._ask_until(ask, deadline)
        return found.conclude()

    # --- the cluster --------------------------------------------------------------------------

    async def cluster(self, *, digest: bool = False, timeout: float | None = None) -> ClusterStatus:
        """Who leads, who follows, how far each server has come. Raises NoServer.

        With `digest` that of the inventory as well, which is empty otherwise: each server reads
        all of its stock for it, seconds for a million levels.
        """
        replies = await self.status(digest=digest, timeout=timeout)
        known = self._require_driver().session.servers
        return cluster_status(replies, {server.node: server.address for server in known})

    @property
    def servers(self) -> tuple[KnownServer, ...]:
        """The servers as this client knows them now, by name; the cluster tells of every change.

        Nobody is asked: before the first call it may be empty, and a client that has said nothing
        for 30 s is told again with its next call. `cluster()` asks.
        """
        session = self._require_driver().session
        return known_servers(session.servers, session.home, monotonic_us())

    @property
    def noticed(self) -> tuple[Notice, ...]:
        """What this client has heard and a person should know: other keys, versions, clusters."""
        return tuple(self._require_driver().noticed)

    async def status(
        self, *, digest: bool = True, timeout: float | None = None
    ) -> tuple[StatusReply, ...]:
        """What each server that can be reached says of itself, word for word.

        Without the inventory's `digest` they answer at once.
        """
        driver = self._require_driver()
        deadline = deadline_after(self._seconds(timeout))
        call = driver.session.status(monotonic_us(), deadline, digest=digest)
        completion = await driver.end_of(call)
        assert isinstance(completion.value, tuple)
        return completion.value

    async def promote_server(self, server: str | int, *, timeout: float | None = None) -> None:
        """Give a server, named or by its id, a vote; with it another one, as they stay odd.

        Returns when a majority of the voters knows it. Raises NotFound for a server that the
        leader does not hear, InvalidRequest when there are voters enough.
        """
        await self._order("promote", server, timeout)

    async def remove_server(
        self, server: str | int, *, confirmed: bool = False, timeout: float | None = None
    ) -> None:
        """Take a server's vote: when this returns it may be switched off for good.

        While it runs it goes on as a replica without a vote. Raises NotFound, and InvalidRequest
        when nobody else could vote, or when one voter of three would be left, which has to be
        `confirmed`.
        """
        await self._order("remove", server, timeout, confirmed=confirmed)

    async def dismiss_server(
        self, server: str | int, *, confirmed: bool = False, timeout: float | None = None
    ) -> None:
        """Take a server's vote and let it stop by itself, as `Cluster.leave` does from its side.

        Raises what `remove_server` does.
        """
        await self._order("leave", server, timeout, confirmed=confirmed)

    async def transfer_leadership(
        self, server: str | int | None = None, *, timeout: float | None = None
    ) -> None:
        """Let another voter lead, by default the best follower. Returns when it does."""
        await self._order("transfer", server, timeout)

    async def _order(
        self,
        what: str,
        server: str | int | None,
        timeout: float | None,
        *,
        confirmed: bool = False,
    ) -> None:
        driver = self._require_driver()
        deadline = deadline_after(self._seconds(timeout))
        node = 0 if server is None else await self._node_of(server, timeout)
        call = driver.session.order(what, node, monotonic_us(), deadline, confirmed=confirmed)
        await driver.end_of(call)

    async def _node_of(self, server: str | int, timeout: float | None) -> int:
        status = await self.cluster(timeout=timeout)
        named = [each.node for each in status.servers if server in (each.name, each.node)]
        if len(named) == 1:
            return named[0]
        names = ", ".join(sorted(each.name for each in status.servers))
        if named:
            raise InvalidRequest(f"{len(named)} servers are named {server!r}: give the id of one.")
        wanted = repr(server) if isinstance(server, str) else f"{server:016x}"
        raise NotFound(f"There is no server {wanted} in this cluster; there are {names}.")

    # --- how ----------------------------------------------------------------------------------

    async def _command(self, call: Call[T], timeout: float | None) -> T:
        driver = self._require_driver()
        deadline = deadline_after(self._seconds(timeout))
        number = driver.session.submit(
            call.encode(), monotonic_us(), deadline, call.idempotency_key
        )
        completion = await driver.end_of(number)
        key = call.idempotency_key or session_key(completion.session, completion.number)
        return call.value(_bytes_of(completion), key)

    async def _ask(self, ask: Ask[T], options: ReadOptions) -> T:
        read, min_seq = options.get("read", "linearizable"), options.get("min_seq")
        if read not in ("linearizable", "local"):
            raise InvalidRequest(f"read is 'linearizable' or 'local', not {read!r}.")
        if min_seq is not None and (type(min_seq) is not int or not 0 <= min_seq < 1 << 63):
            raise InvalidRequest(f"min_seq is a seq, not {min_seq!r}.")
        deadline = deadline_after(self._seconds(options.get("timeout")))
        return await self._ask_until(ask, deadline, read == "linearizable", min_seq or 0)

    async def _ask_until(
        self, ask: Ask[T], deadline: int, linearizable: bool = True, min_seq: int = 0
    ) -> T:
        driver = self._require_driver()
        call = driver.session.query(
            ask.encode(), monotonic_us(), deadline, linearizable=linearizable, min_seq=min_seq
        )
        return ask.value(_bytes_of(await driver.end_of(call)))

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self._timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidRequest(f"timeout is a number of seconds above 0, not {timeout!r}.")
        return timeout

    def _require_driver(self) -> Driver:
        driver = self._driver
        if driver is None or self._left:
            raise ConfigError("use the client inside its context: async with InventoryClient(…)")
        if driver.failure is not None:
            raise driver.failure
        return driver


def _bytes_of(completion: Completion) -> bytes:
    assert isinstance(completion.value, bytes)
    return completion.value


async def _close_shielded(resource: Any) -> None:
    with anyio.CancelScope(shield=True):
        await resource.aclose()
