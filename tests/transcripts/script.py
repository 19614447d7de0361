"""A transcript as text: prose, commands, and what came out of each.

> verb word "a word with blanks"      a command
    four blanks                       what came out of it
anything else                         prose, which is kept as it is
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from record import Record

_COMMAND = "> "
_OUTPUT = "    "


class ScriptError(Exception):
    """A scene that cannot be played, or whose check fails; says file and line."""


@frozen
class Command:
    where: str
    """file:line"""
    text: str
    words: tuple[str, ...]


Item = Command | str
"""A command, or a line of prose."""


def parse(path: Path) -> list[Item]:
    """The commands and the prose of a scene. Raises ScriptError."""
    items: list[Item] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        where = f"{path.name}:{number}"
        if line.startswith(_COMMAND):
            items.append(Command(where, line[len(_COMMAND) :], _words(where, line[2:])))
        elif line.startswith(">"):
            raise ScriptError(f"{where}: a command is '> ' and a verb")
        elif not line.startswith(_OUTPUT):
            items.append(line.rstrip())
    return items


def _words(where: str, text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as problem:
        raise ScriptError(f"{where}: {problem}") from problem
    if not words:
        raise ScriptError(f"{where}: a command without a verb")
    return words


def perform(stage: Any, command: Command) -> tuple[str, ...]:
    """Let the stage do one command; what came out.

    Every stage knows `quietly COMMAND`, which tells nothing, and `check WHAT`. Raises ScriptError
    for what the stage does not know, and for what does not hold.
    """
    record: Record = stage.record
    record.begin()
    words = command.words
    try:
        if words[0] == "quietly":
            with record.silence():
                _call(stage, "do_", words[1:])
        elif words[0] == "check":
            _call(stage, "check_", words[1:])
            record.say("holds")
        else:
            _call(stage, "do_", words)
    except (ScriptError, ValueError) as problem:
        raise ScriptError(f"{command.where}: {command.text}: {problem}") from problem
    except AssertionError as problem:
        story = "".join(f"\n{_OUTPUT}{line}" for line in record.lines)
        raise ScriptError(f"{command.where}: {command.text}: FAILED: {problem}{story}") from problem
    return tuple(record.lines)


def _call(stage: Any, prefix: str, words: tuple[str, ...]) -> None:
    verb = words[0] if words else ""
    method = getattr(stage, prefix + verb.replace("-", "_"), None)
    if method is None:
        known = [name.removeprefix(prefix) for name in dir(stage) if name.startswith(prefix)]
        names = ", ".join(sorted(name.replace("_", "-") for name in known))
        raise ScriptError(f"there is no {verb!r} here, but {names}")
    try:
        inspect.signature(method).bind(*words[1:])
    except TypeError as problem:
        raise ScriptError(f"usage: {usage(verb, method)}") from problem
    method(*words[1:])


def usage(verb: str, method: Callable[..., None]) -> str:
    """A command's words, from the signature of its method."""
    words = [verb]
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"[{name.upper()} …]")
        else:
            optional = parameter.default is not parameter.empty
            words.append(f"[{name.upper()}]" if optional else name.upper())
    return " ".join(words)


def render(played: list[tuple[Item, tuple[str, ...]]]) -> str:
    """A scene's file: every command followed by what came out."""
    lines: list[str] = []
    for item, output in played:
        if isinstance(item, Command):
            lines.append(_COMMAND + item.text)
            lines.extend(_OUTPUT + line for line in output)
        else:
            lines.append(item)
    return "\n".join(lines) + "\n"


def duration_us(text: str) -> int:
    """Microseconds of "250us", "100ms" or "3s". Raises ValueError."""
    for unit, factor in (("us", 1), ("ms", 1_000), ("s", 1_000_000)):
        digits = text.removesuffix(unit)
        if digits != text and digits.isdecimal():
            return int(digits) * factor
    raise ValueError(f"{text!r} is no time, such as 100ms")


def duration_ms(text: str) -> int:
    """Whole milliseconds of it. Raises ValueError."""
    time_us = duration_us(text)
    expect(time_us % 1_000 == 0, "time passes in whole milliseconds")
    return time_us // 1_000


def expect(condition: bool, otherwise: str) -> None:
    """Raises ValueError when a command is not what it should be."""
    if not condition:
        raise ValueError(otherwise)
