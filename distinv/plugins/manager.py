"""`Plugins`: everything that has been plugged in, by kind and name.

This, the hook specifications and the built-ins are the only files that know pluggy. It is used
at start-up only: what a cluster or a client keeps are the factories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import ModuleType
from typing import Any, TypeVar, cast

import pluggy
from attrs import frozen

from distinv.discovery.api import DiscoveryFactory
from distinv.election.api import ElectionFactory
from distinv.errors import PluginError
from distinv.multicast.api import MulticastFactory
from distinv.plugins import builtin, hookspecs
from distinv.plugins.observer import ObserverFactory
from distinv.storage.api import StorageFactory
from distinv.transport.api import TransportFactory

_HOOKS = {
    "election": "distinv_elections",
    "multicast": "distinv_multicasts",
    "discovery": "distinv_discoveries",
    "transport": "distinv_transports",
    "storage": "distinv_storages",
    "observer": "distinv_observers",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

_Factory = TypeVar("_Factory")


@frozen
class Origin:
    """Where a plugin comes from."""

    distribution: str
    """The installed package; for a plugin given in the program, its module or class."""
    version: str
    """Empty for a plugin given in the program."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@frozen
class Listed:
    """One row of `distinv plugins`."""

    kind: str
    name: str
    origin: Origin


class Plugins:
    """The built-in plugins, the installed ones, and those given. One per cluster or client.

    Raises PluginError, in one line that names the plugin, when one cannot be loaded, has a
    misspelt hook or none, or brings a name that another one has brought.
    """

    def __init__(self, plugins: Iterable[object] = (), *, installed: bool = True) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._origins: dict[str, Origin] = {}
        self._register(builtin, Origin("distinv", _own_version()))
        if installed:
            for entry in entry_points(group=hookspecs.PROJECT):
                self._register(_load(entry), _origin_of(entry))
        for plugin in plugins:
            self._register(plugin, Origin(_describe(plugin), ""))
        self._factories = {kind: self._collect(kind) for kind in _HOOKS}

    def election(self, choice: str | ElectionFactory) -> ElectionFactory:
        """The factory of this name, or `choice` itself. Raises PluginError for an unknown name."""
        return self._choose("election", choice)

    def multicast(self, choice: str | MulticastFactory) -> MulticastFactory:
        """Like `election`."""
        return self._choose("multicast", choice)

    def discovery(self, choice: str | DiscoveryFactory) -> DiscoveryFactory:
        """Like `election`."""
        return self._choose("discovery", choice)

    def transport(self, choice: str | TransportFactory) -> TransportFactory:
        """Like `election`."""
        return self._choose("transport", choice)

    def storage(self, choice: str | StorageFactory) -> StorageFactory:
        """Like `election`."""
        return self._choose("storage", choice)

    def observers(self) -> tuple[tuple[str, ObserverFactory], ...]:
        """All observers with their names, in the order of their names."""
        found = self._factories["observer"]
        return tuple((name, found[name][0]) for name in sorted(found))

    def names(self, kind: str) -> tuple[str, ...]:
        """What can be chosen for a kind (`election`, `multicast`, …), in alphabetical order."""
        return tuple(sorted(self._factories[kind]))

    def listing(self) -> tuple[Listed, ...]:
        """Everything there is, by kind in the order of the hooks, then by name."""
        return tuple(
            Listed(kind, name, found[name][1])
            for kind, found in self._factories.items()
            for name in sorted(found)
        )

    def _choose(self, kind: str, choice: str | _Factory) -> _Factory:
        if not isinstance(choice, str):
            return choice
        found = self._factories[kind]
        if choice not in found:
            choices = ", ".join(sorted(found))
            raise PluginError(f"there is no {kind} {choice!r}; choose one of: {choices}")
        return cast("_Factory", found[choice][0])

    def _register(self, plugin: object, origin: Origin) -> None:
        if self._manager.is_registered(plugin):
            return
        if isinstance(plugin, type):
            raise PluginError(f"the plugin {origin} is a class: give an instance of it")
        name = f"{len(self._origins)} {origin}"
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"the plugin {origin} does not fit: {_one_line(error)}") from error
        if not self._manager.get_hookcallers(plugin):
            raise PluginError(f"the plugin {origin} has no function that is marked @hookimpl")
        self._origins[name] = origin

    def _collect(self, kind: str) -> dict[str, tuple[Any, Origin]]:
        """Ask every plugin by itself, so that a mistake has an author."""
        found: dict[str, tuple[Any, Origin]] = {}
        caller: pluggy.HookCaller = getattr(self._manager.hook, _HOOKS[kind])
        for implementation in caller.get_hookimpls():
            origin = self._origins[implementation.plugin_name]
            for name, factory in _ask(implementation, kind, origin):
                if name in found:
                    raise PluginError(
                        f"two plugins bring the {kind} {name!r}: "
                        f"{found[name][1]} and {origin}; remove one"
                    )
                found[name] = (factory, origin)
        return found


def _ask(implementation: pluggy.HookImpl, kind: str, origin: Origin) -> list[tuple[str, object]]:
    hook = _HOOKS[kind]
    if implementation.wrapper or implementation.hookwrapper:
        raise PluginError(f"{hook} of {origin} is a wrapper, but there is nothing to wrap")
    try:
        answer: Any = implementation.function()
        pairs = list(answer.items() if isinstance(answer, Mapping) else answer)
    except Exception as error:
        raise PluginError(f"{hook} of {origin} failed: {_one_line(error)}") from error
    for pair in pairs:
        _check(pair, hook, origin)
    return pairs


def _check(pair: object, hook: str, origin: Origin) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise PluginError(f"{hook} of {origin} returns {pair!r} instead of (name, factory)")
    name, factory = pair
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{hook} of {origin} returns the name {name!r}: take 1 to 32 of a-z, 0-9, - and _"
        )
    if not callable(factory):
        raise PluginError(f"{hook} of {origin}: {name!r} is {factory!r} and not a factory")


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"the plugin {entry.name!r} of {_origin_of(entry)} cannot be loaded: "
            f"{_one_line(error)}; repair or uninstall it"
        ) from error


def _origin_of(entry: EntryPoint) -> Origin:
    if entry.dist is None:
        return Origin(entry.value, "")
    return Origin(entry.dist.name, entry.dist.version)


def _own_version() -> str:
    try:
        return version("distinv")
    except PackageNotFoundError:  # run from its sources
        return ""


def _describe(plugin: object) -> str:
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return f"{kind.__module__}.{kind.__qualname__}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
