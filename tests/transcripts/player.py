"""Plays a scene on its stage; what comes out is the file as it should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core_stage import CoreStage
from link_stage import LinkStage
from script import Command, Item, ScriptError, parse, perform, render
from shop_stage import ShopStage

STAGES: dict[str, Callable[[], Any]] = {
    "servers": CoreStage,
    "shop": ShopStage,
    "link": LinkStage,
}
"""By a scene's first command."""

CHECKS: dict[str, tuple[str, ...]] = {
    "servers": ("check prefix", "check one-leader-per-ballot"),
    "shop": ("check prefix", "check one-leader-per-ballot", "check effects-once"),
    "link": ("check in-order",),
}
"""What every scene ends with, so that nobody writes a broken promise into its file."""


def play(path: Path) -> str:
    """The whole file, regenerated. Raises ScriptError, also when a check fails."""
    items = parse(path)
    first = next((item for item in items if isinstance(item, Command)), None)
    if first is None or first.words[0] not in STAGES:
        known = ", ".join(STAGES)
        raise ScriptError(f"{path.name}:1: a scene begins with prose and one of {known}")
    stage = STAGES[first.words[0]]()
    played: list[tuple[Item, tuple[str, ...]]] = []
    for item in items:
        if isinstance(item, Command):
            played.append((item, perform(stage, item)))
        else:
            played.append((item, ()))
    _demand_checks(path, items, CHECKS[first.words[0]])
    return render(played)


def _demand_checks(path: Path, items: list[Item], checks: tuple[str, ...]) -> None:
    commands = [item for item in items if isinstance(item, Command)]
    ending = [command.text for command in commands[-len(checks) :]]
    if ending != list(checks):
        wanted = ", then ".join(f"'> {check}'" for check in checks)
        raise ScriptError(f"{commands[-1].where}: a scene ends with {wanted}")
