"""Tables of the documentation that are made from the source, so that they cannot go stale.

    ```{settings} Timing              every value of a class of `distinv.config`, with its reason
    beacon_group: a reason that the source does not give
    ```

    ```{command-options} serve        what a command takes, from its parser
    ```

    ```{planted-bugs}                 what the simulator must notice
    ```{schedules}                    what it is told to bring about
    ```

The functions below make Markdown and know nothing of Sphinx, so that the tests can call them.
"""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from distinv import config
from distinv.cli import options as cli_options
from distinv.cli.main import make_parser
from distinv.testing.simulator.planted import PLANTED, TOLD_BY
from distinv.testing.simulator.schedules import SCHEDULES

# --- settings ---------------------------------------------------------------------------------

_DAY_US = 86_400_000_000
_UNITS_US = (
    (_DAY_US, "days"),
    (3_600_000_000, "h"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "µs"),
)
_UNITS_BYTES = ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


class Setting(NamedTuple):
    name: str
    value: str
    """As people write it."""
    reason: str
    """Empty when the source gives none."""


def settings(class_name: str) -> list[Setting]:
    """The values of a class of `distinv.config`, in the order of the source."""
    source = ast.parse(Path(config.__file__).read_text("utf-8"))
    (body,) = [
        node.body
        for node in source.body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    ]
    defaults = {field.name: field.default for field in attrs.fields(getattr(config, class_name))}
    found = []
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            found.append(Setting(name, _shown(name, defaults[name]), _docstring(body[at + 1 :])))
    return found


def _docstring(following: Sequence[ast.stmt]) -> str:
    match following:
        case [ast.Expr(value=ast.Constant(value=str(text))), *_]:
            return " ".join(text.split())
    return ""


def _shown(name: str, value: Any) -> str:
    if name.endswith("_us"):
        return _in_units(value, _UNITS_US)
    if name.endswith("_bytes"):
        return _in_units(value, _UNITS_BYTES)
    if isinstance(value, int) and not isinstance(value, bool):
        if "port" in name:
            return str(value)
        return "2⁶³ − 1" if value == 2**63 - 1 else f"{value:,}"
    if attrs.has(type(value)):
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"


def _in_units(value: int, units: Iterable[tuple[int, str]]) -> str:
    for size, unit in units:
        if value % size == 0 and value > (size if size == _DAY_US else 0):
            return f"{value // size:,} {unit}"
    return str(value)


def settings_table(class_name: str, reasons: dict[str, str]) -> str:
    """Markdown. `reasons` completes the source; ValueError when it repeats or misses one."""
    rows = ["| value | default | why |", "|---|---|---|"]
    found = settings(class_name)
    unknown = reasons.keys() - {setting.name for setting in found}
    if unknown:
        raise ValueError(f"{class_name} has no {', '.join(sorted(unknown))}")
    for setting in found:
        given = [text for text in (setting.reason, reasons.get(setting.name, "")) if text]
        if len(given) != 1:
            raise ValueError(f"{class_name}.{setting.name} has {len(given)} reasons, not one")
        rows.append(f"| `{setting.name}` | {setting.value} | {_cell(given[0])} |")
    return "\n".join(rows)


def reasons_of(lines: Iterable[str]) -> dict[str, str]:
    """`name: reason`, one a line."""
    pairs = (line.partition(": ") for line in lines if line.strip())
    return {name.strip(): reason.strip() for name, _, reason in pairs}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- the command line -------------------------------------------------------------------------


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    kept = os.environ.pop(cli_options.CLUSTER_VARIABLE, None)  # else --cluster has a default
    try:
        parser = make_parser()
    finally:
        if kept is not None:
            os.environ[cli_options.CLUSTER_VARIABLE] = kept
    (commands,) = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(commands.choices)


class Option(NamedTuple):
    shown: str
    meaning: str


def command_options(name: str) -> list[Option]:
    """What `name` takes besides what is shared.

    Two more names stand for what is shared: `network` is what every command takes that has to do
    with a cluster, `client` what all of those take but `serve`.
    """
    options = {
        command: [_option(action) for action in parser._actions if action.dest != "help"]
        for command, parser in command_parsers().items()
    }
    network = [
        rows
        for rows in options.values()
        if any(option.shown.startswith("`--cluster") for option in rows)
    ]
    clients = [rows for rows in network if rows is not options["serve"]]
    shared = _common(network)
    of_clients = [option for option in _common(clients) if option not in shared]
    if name == "network":
        return shared
    if name == "client":
        return of_clients
    return [option for option in options[name] if option not in (*shared, *of_clients)]


def _common(lists: Sequence[list[Option]]) -> list[Option]:
    return [option for option in lists[0] if all(option in other for other in lists[1:])]


def _option(action: argparse.Action) -> Option:
    value = action.metavar or action.dest.upper()
    if action.choices is not None and action.metavar is None:
        value = "|".join(map(str, action.choices))
    if not action.option_strings:
        shown = value if action.choices is not None or action.metavar else action.dest
        shown += {"?": " (optional)", "*": " …", "+": " …"}.get(str(action.nargs), "")
    else:
        shown = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
    return Option(f"`{_cell(shown)}`", (action.help or "").replace("`distinv keygen`", "keygen"))


def options_table(name: str) -> str:
    rows = ["| option | |", "|---|---|"]
    rows += [f"| {option.shown} | {_cell(option.meaning)} |" for option in command_options(name)]
    return "\n".join(rows)


# --- the simulator ----------------------------------------------------------------------------


def planted_table() -> str:
    """The bugs that can be planted, and what each does."""
    rows = ["| name | what it does | shown by |", "|---|---|---|"]
    for name, bug in PLANTED.items():
        if not bug.__doc__:
            raise ValueError(f"the planted bug {name} does not say what it does")
        shown_by = f"`{TOLD_BY[name]}`" if name in TOLD_BY else "seeds"
        rows.append(f"| `{name}` | {_cell(' '.join(bug.__doc__.split()))} | {shown_by} |")
    return "\n".join(rows)


def schedules_table() -> str:
    """The schedules with a name, and the story of each."""
    rows = ["| name | story |", "|---|---|"]
    for name, schedule in SCHEDULES.items():
        if not schedule.story.__doc__:
            raise ValueError(f"the schedule {name} does not tell what it is about")
        rows.append(f"| `{name}` | {_cell(' '.join(schedule.story.__doc__.split()))} |")
    return "\n".join(rows)


# --- Sphinx -----------------------------------------------------------------------------------


def _leave_out_generated(
    app: Any, what: str, name: str, obj: object, options: Any, lines: Any
) -> None:
    """Constructors that attrs makes have a docstring that says only that."""
    lines[:] = [line for line in lines if not line.startswith("Method generated by attrs")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives, and tidy docstrings."""
    from docutils import nodes
    from docutils.parsers.rst import Directive
    from docutils.statemachine import StringList

    def directive(name: str, arguments: int, table: Callable[..., str]) -> None:
        """`name` stands for what `table` makes of the directive's content and its arguments."""

        class FromSource(Directive):
            has_content = True
            required_arguments = arguments

            def run(self) -> list[nodes.Node]:
                try:
                    lines = table(self.content, *self.arguments).splitlines()
                except (ValueError, KeyError) as error:
                    raise self.error(str(error)) from error
                holder = nodes.container()
                self.state.nested_parse(StringList(lines), self.content_offset, holder)
                return holder.children

        app.add_directive(name, FromSource)

    directive("settings", 1, lambda content, name: settings_table(name, reasons_of(content)))
    directive("command-options", 1, lambda _, name: options_table(name))
    directive("planted-bugs", 0, lambda _: planted_table())
    directive("schedules", 0, lambda _: schedules_table())
    app.connect("autodoc-process-docstring", _leave_out_generated)
    return {"parallel_read_safe": True}
