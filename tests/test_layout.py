"""Imports point one way: whoever reads a layer needs to know only those below it.

model, errors, config, entry -> wire.messages -> */api -> implementations | core, server
-> plugins -> runtime, client -> cli
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distinv

PACKAGE = Path(distinv.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """What a file imports; without `lazy` only what importing it imports, types aside."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = list(ast.walk(tree)) if lazy else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def importers(*of: str, lazy: bool = True) -> set[str]:
    """Modules of the package that import any of these."""
    return {
        module_of(path)
        for path in FILES
        if any(under(name, *of) for name in imports_of(path, lazy=lazy))
    }


def allowed(importing: set[str], *prefixes: str) -> set[str]:
    return {module for module in importing if not under(module, *prefixes)}


IMPLEMENTATIONS = [
    module_of(path)
    for path in FILES
    if path.parent.name in ("election", "multicast", "discovery", "transport", "storage")
    and path.stem not in ("__init__", "api")
]


def test_only_the_plugins_folder_imports_pluggy() -> None:
    assert allowed(importers("pluggy"), "distinv.plugins") == set()


def test_anyio_is_at_the_edge_only() -> None:
    edge = ("runtime", "transport", "discovery", "client.client", "client.driver", "cli")
    prefixes = [f"distinv.{name}" for name in (*edge, "testing")]
    assert allowed(importers("anyio", "asyncio", "trio"), *prefixes) == set()


def test_the_simulated_world_has_no_event_loop_and_no_clock() -> None:
    running = ("__init__", "campaign", "story")  # they count seconds and start processes
    world = [
        module_of(path)
        for path in FILES
        if path.parent.name == "simulator" and path.stem not in running
    ]
    assert world
    outside = importers("anyio", "asyncio", "trio", "time", "socket", "threading", "os", "secrets")
    assert {module for module in outside if under(module, *world)} == set()


@pytest.mark.parametrize("world", ["time", "random", "socket", "threading", "os", "secrets"])
def test_the_core_has_no_clock_no_chance_and_no_io(world: str) -> None:
    named = {
        name
        for path in FILES
        if under(module_of(path), "distinv.core", "distinv.election", "distinv.server")
        for name in imports_of(path)
        if under(name, world)
    }
    # Chance is handed in as a `random.Random`: only its type is named.
    assert named <= ({"random", "random.Random"} if world == "random" else set())


def test_the_core_knows_no_implementation() -> None:
    for module in importers(*IMPLEMENTATIONS):
        assert not under(module, "distinv.core", "distinv.server"), module


def test_an_extension_point_knows_no_implementation() -> None:
    apis = {module for module in importers(*IMPLEMENTATIONS) if module.endswith(".api")}
    assert apis == set()


def test_nothing_but_the_command_line_imports_the_test_kit_and_that_lazily() -> None:
    assert allowed(importers("distinv.testing"), "distinv.testing", "distinv.cli") == set()
    assert allowed(importers("distinv.testing", lazy=False), "distinv.testing") == set()


@pytest.mark.parametrize(
    ("lower", "uppers"),
    [
        (("model", "errors", "config", "entry"), ("core", "server", "runtime", "client", "cli")),
        (("wire",), ("core", "server", "inventory", "runtime", "client", "plugins", "cli")),
        (("core",), ("server", "runtime", "client", "plugins", "cli", "inventory")),
        (("server",), ("runtime", "client", "plugins", "cli", "inventory")),
        (("inventory",), ("server", "runtime", "client", "plugins", "cli")),
        (("plugins",), ("runtime", "client", "cli", "server")),
        (("runtime", "client"), ("cli",)),
    ],
)
def test_lower_layers_know_nothing_of_upper_ones(
    lower: tuple[str, ...], uppers: tuple[str, ...]
) -> None:
    found = importers(*(f"distinv.{upper}" for upper in uppers), lazy=False)
    assert {
        module for module in found if under(module, *(f"distinv.{low}" for low in lower))
    } == set()


def test_every_module_and_public_name_says_what_it_is() -> None:
    silent = [
        f"{module_of(path)}"
        for path in FILES
        if path.read_text("utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []
    for name in distinv.__all__:
        thing = getattr(distinv, name)
        assert not isinstance(thing, type) or thing.__doc__, name
