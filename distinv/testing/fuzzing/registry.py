"""Every target by its name, and which functions for untrusted bytes there are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import distinv
from distinv.errors import ConfigError
from distinv.testing.fuzzing import answering, copies, decoders, inbox, journals, links, stores
from distinv.testing.fuzzing.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *decoders.TARGETS,
        *stores.TARGETS,
        *copies.TARGETS,
        *journals.TARGETS,
        *links.TARGETS,
        *inbox.TARGETS,
        *answering.TARGETS,
    )
}


def chosen(name: str) -> list[Target]:
    """The targets of that name, or all. Raises ConfigError."""
    if name == "all":
        return list(TARGETS.values())
    if name not in TARGETS:
        raise ConfigError(f"there is no target {name!r}; choose from all, {', '.join(TARGETS)}")
    return [TARGETS[name]]


def untrusted_functions() -> list[str]:
    """All functions of the package whose name ends in `_untrusted`, as `Target.covers` has them."""
    root = Path(distinv.__file__).parent
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).with_suffix("")
        if module.parts[0] != "testing":
            tree = ast.parse(path.read_text("utf-8"))
            found += (".".join((*module.parts, name)) for name in _functions(tree, ()))
    return found


def _functions(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if child.name.endswith("_untrusted"):
                yield ".".join((*within, child.name))
            yield from _functions(child, (*within, child.name))
        else:
            yield from _functions(child, within)
