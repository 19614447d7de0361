"""What is plugged in is found, and what is wrong with it is said in one line."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distinv.errors import PluginError
from distinv.plugins import builtin
from distinv.plugins.hookspecs import hookimpl
from distinv.plugins.manager import Plugins
from distinv.plugins.observer import Observer, ObserverContext


def some_factory(context: object) -> Any:
    return context


class Named:
    """A plugin that brings one election."""

    def __init__(self, name: Any = "mine", factory: Any = some_factory) -> None:
        self.answer: Any = {name: factory}

    @hookimpl
    def distinv_elections(self) -> Any:
        return self.answer


def install(directory: Path, name: str, source: str, *, module: str | None = None) -> None:
    """An installed distribution `name` 1.2 whose entry point `door` is a module."""
    module = module or name.replace("-", "_")
    (directory / f"{module}.py").write_text(textwrap.dedent(source))
    info = directory / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[distinv]\ndoor = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed distributions; its modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def one_line(raised: pytest.ExceptionInfo[PluginError]) -> str:
    text = str(raised.value)
    assert "\n" not in text
    return text


# --- the built-ins ----------------------------------------------------------------------------


def test_the_built_ins_are_there() -> None:
    plugins = Plugins(installed=False)
    assert plugins.names("election") == ("bully", "ring")
    assert plugins.names("multicast") == ("fanout",)
    assert plugins.names("discovery") == ("beacon", "static")
    assert plugins.names("transport") == ("faulty", "udp")
    assert plugins.names("storage") == ("journal", "memory")
    assert plugins.names("observer") == ()


def test_built_ins_come_in_by_the_entry_point_too_and_only_once() -> None:
    listing = [row for row in Plugins().listing() if row.origin.distribution == "distinv"]
    assert [(row.kind, row.name) for row in listing] == [
        (row.kind, row.name) for row in Plugins(installed=False).listing()
    ]


def test_each_kind_has_a_typed_way_to_its_factories() -> None:
    plugins = Plugins(installed=False)
    elections: Mapping[str, object] = builtin.distinv_elections()
    assert plugins.election("ring") is elections["ring"]
    for choose, name in (
        (plugins.multicast, "fanout"),
        (plugins.discovery, "static"),
        (plugins.transport, "udp"),
        (plugins.storage, "journal"),
    ):
        assert callable(choose(name))


def test_a_factory_stands_for_itself() -> None:
    assert Plugins(installed=False).election(some_factory) is some_factory


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("election", "bully, ring"),
        ("multicast", "fanout"),
        ("discovery", "beacon, static"),
        ("transport", "faulty, udp"),
        ("storage", "journal, memory"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_choices(kind: str, choices: str) -> None:
    plugins = Plugins(installed=False)
    with pytest.raises(PluginError) as raised:
        getattr(plugins, kind)("nonsense")
    assert one_line(raised) == f"there is no {kind} 'nonsense'; choose one of: {choices}"


# --- plugins given in the program -------------------------------------------------------------


def test_an_object_adds_a_name() -> None:
    plugins = Plugins([Named("mine")], installed=False)
    assert plugins.election("mine") is some_factory
    assert plugins.names("election") == ("bully", "mine", "ring")
    (row,) = [row for row in plugins.listing() if row.name == "mine"]
    assert str(row.origin) == "test_plugins.Named"


def test_a_module_adds_a_name() -> None:
    module = ModuleType("somebodys")
    module.distinv_elections = hookimpl(  # type: ignore[attr-defined]
        lambda: [("mine", some_factory)], specname="distinv_elections"
    )
    assert Plugins([module], installed=False).election("mine") is some_factory


def test_pairs_do_as_well_as_a_mapping() -> None:
    plugin = Named()
    plugin.answer = (pair for pair in [("one", some_factory), ("two", some_factory)])
    assert Plugins([plugin], installed=False).names("election") == ("bully", "one", "ring", "two")


def test_observers_come_all_in_the_order_of_their_names() -> None:
    heard: list[object] = []

    class Listener:
        def on_events(self, events: Sequence[object]) -> None:
            heard.extend(events)

    class Watching:
        @hookimpl
        def distinv_observers(self) -> Mapping[str, Any]:
            return {"watch": lambda context: Listener(), "audit": lambda context: Listener()}

    observers = Plugins([Watching()], installed=False).observers()
    assert [name for name, _ in observers] == ["audit", "watch"]
    observer: Observer = observers[0][1](ObserverContext("shop", "node-1"))
    observer.on_events(["something"])
    assert heard == ["something"]


def test_nothing_is_shared_between_two_sets_of_plugins() -> None:
    Plugins([Named("mine")], installed=False)
    assert "mine" not in Plugins(installed=False).names("election")


def test_the_same_plugin_given_twice_is_one() -> None:
    plugin = Named("mine")
    assert "mine" in Plugins([plugin, plugin], installed=False).names("election")


# --- what can be wrong ------------------------------------------------------------------------


def test_a_name_that_is_taken_is_an_error_that_names_both() -> None:
    with pytest.raises(PluginError) as raised:
        Plugins([Named("ring")], installed=False)
    text = one_line(raised)
    assert "two plugins bring the election 'ring'" in text
    assert "distinv" in text
    assert "test_plugins.Named" in text


def test_one_plugin_that_brings_a_name_twice_is_an_error() -> None:
    plugin = Named()
    plugin.answer = [("mine", some_factory), ("mine", some_factory)]
    with pytest.raises(PluginError, match="two plugins bring the election 'mine'"):
        Plugins([plugin], installed=False)


def test_a_misspelt_hook_is_an_error() -> None:
    class Misspelt:
        @hookimpl
        def distinv_electoins(self) -> Mapping[str, Any]:
            return {}

    with pytest.raises(PluginError, match=r"Misspelt does not fit: .*distinv_electoins") as raised:
        Plugins([Misspelt()], installed=False)
    one_line(raised)


def test_a_hook_without_the_mark_is_an_error() -> None:
    class Unmarked:
        def distinv_elections(self) -> Mapping[str, Any]:
            return {}

    with pytest.raises(PluginError, match="no function that is marked @hookimpl"):
        Plugins([Unmarked()], installed=False)


def test_a_hook_with_an_argument_is_an_error() -> None:
    class Asking:
        @hookimpl
        def distinv_elections(self, config: object) -> Mapping[str, Any]:
            return {}

    with pytest.raises(PluginError, match=r"Asking does not fit: .*config") as raised:
        Plugins([Asking()], installed=False)
    one_line(raised)


def test_a_class_instead_of_an_instance_is_an_error_that_says_so() -> None:
    with pytest.raises(PluginError, match="is a class: give an instance of it"):
        Plugins([Named], installed=False)


def test_a_wrapper_is_an_error() -> None:
    class Wrapping:
        @hookimpl(wrapper=True)
        def distinv_elections(self) -> Any:
            return (yield)

    with pytest.raises(PluginError, match="there is nothing to wrap"):
        Plugins([Wrapping()], installed=False)


def test_a_hook_that_raises_is_an_error_that_names_it() -> None:
    class Raising:
        @hookimpl
        def distinv_storages(self) -> Mapping[str, Any]:
            raise RuntimeError("two\nlines")

    with pytest.raises(PluginError, match=r"distinv_storages of .*Raising failed") as raised:
        Plugins([Raising()], installed=False)
    assert "two lines" in one_line(raised)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "failed: TypeError"),
        (5, "failed: TypeError"),
        ([("name",)], "instead of"),
        (["ab"], "instead of"),
        ({"": some_factory}, "the name ''"),
        ({"With Space": some_factory}, "the name 'With Space'"),
        ({"x" * 33: some_factory}, "1 to 32"),
        ({7: some_factory}, "the name 7"),
        ({"mine": "not callable"}, "not a factory"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(answer: object, says: str) -> None:
    plugin = Named()
    plugin.answer = answer
    with pytest.raises(PluginError) as raised:
        Plugins([plugin], installed=False)
    assert says in one_line(raised)


# --- installed plugins ------------------------------------------------------------------------

GOOD = """
    from distinv.plugins.hookspecs import hookimpl

    @hookimpl
    def distinv_elections():
        return {"theirs": lambda context: None}
"""


def test_an_installed_plugin_is_found_with_its_version(site: Path) -> None:
    install(site, "some-election", GOOD)
    plugins = Plugins()
    assert "theirs" in plugins.names("election")
    (row,) = [row for row in plugins.listing() if row.name == "theirs"]
    assert str(row.origin) == "some-election 1.2"
    assert "theirs" not in Plugins(installed=False).names("election")


def test_an_installed_plugin_given_as_well_is_one(site: Path) -> None:
    install(site, "some-election", GOOD)
    found = Plugins()
    assert "theirs" in found.names("election")
    assert "theirs" in Plugins([sys.modules["some_election"]]).names("election")


def test_two_installed_plugins_with_one_name_are_both_named(site: Path) -> None:
    install(site, "some-election", GOOD)
    install(site, "other-election", GOOD)
    with pytest.raises(PluginError) as raised:
        Plugins()
    text = one_line(raised)
    assert "some-election 1.2" in text
    assert "other-election 1.2" in text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_of_theirs", "ModuleNotFoundError"),
        ("raise RuntimeError('not\\nmy day')", "RuntimeError: not my day"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_clear_line(
    site: Path, source: str, says: str
) -> None:
    install(site, "broken-election", source)
    with pytest.raises(PluginError) as raised:
        Plugins()
    text = one_line(raised)
    assert text.startswith("the plugin 'door' of broken-election 1.2 cannot be loaded: ")
    assert says in text


def test_a_module_without_hooks_is_an_error(site: Path) -> None:
    install(site, "empty-election", "")
    with pytest.raises(PluginError, match=r"empty-election 1\.2 has no function"):
        Plugins()
