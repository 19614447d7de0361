"""The tables of the documentation hold everything that the source has, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from documents import DOCS, documented_blocks, table

import distinv
from distinv import errors
from distinv.plugins import hookspecs
from distinv.wire import frame, messages

sys.path.insert(0, str(DOCS / "_ext"))

import from_source


def code(cell: str) -> str:
    """What stands in backticks."""
    return cell.strip("`")


# --- protocol and delivery --------------------------------------------------------------------


def test_every_message_stands_in_the_table() -> None:
    rows = table(DOCS / "protocol.md", ("tag", "message", "ordered", "from, to", "says"))
    told = [(int(row["tag"]), code(row["message"]), row["ordered"] == "yes") for row in rows]
    built = sorted(
        (message.__struct_config__.tag, message.__name__, message in messages.ORDERED)
        for message in get_args(messages.Message)
    )
    assert told == built
    assert all(row["from, to"] and row["says"] for row in rows)


def test_the_header_is_as_long_as_its_table() -> None:
    rows = table(DOCS / "delivery.md", ("bytes", "field", "meaning"))
    assert sum(int(row["bytes"]) for row in rows) == frame.HEADER_BYTES
    assert len(rows) == len(frame.Header._fields) + 2  # magic and version


def test_every_chunk_stands_in_the_table() -> None:
    rows = table(DOCS / "delivery.md", ("type", "chunk", "content"))
    chunks = [chunk.__name__ for chunk in get_args(frame.Chunk)]
    assert [row["chunk"] for row in rows] == chunks
    assert [int(row["type"]) for row in rows] == list(range(1, len(chunks) + 1))


def test_the_reasons_of_a_refusal_are_told() -> None:
    """Those that `NotTaken` may bear, as far as anything in the source sends them."""
    text = (DOCS / "protocol.md").read_text("utf-8")
    server = "".join(
        path.read_text("utf-8")
        for folder in ("server", "core")
        for path in sorted((Path(distinv.__file__).parent / folder).glob("*.py"))
    )
    for reason in ("no_leader", "not_leader", "no_quorum", "overloaded", "gap", "invalid_request"):
        sent = f'"{reason}"' in server
        assert (f"`{reason}`" in text) == sent, reason


# --- plugins ----------------------------------------------------------------------------------


def hooks() -> dict[str, str]:
    """The signature of every hook, as the source has it."""
    source = ast.parse(inspect.getsource(hookspecs))
    return {
        node.name: f"def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}: ..."
        for node in source.body
        if isinstance(node, ast.FunctionDef)
        and node.returns is not None
        and any(ast.unparse(mark) == "hookspec" for mark in node.decorator_list)
    }


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    told = [block.text.strip() for block in documented_blocks("hook")]
    assert told == list(hooks().values())
    assert len(told) == 6


def test_what_the_hooks_return_is_explained() -> None:
    (alias,) = re.findall(r"^Named: TypeAlias = (.*)$", inspect.getsource(hookspecs), re.MULTILINE)
    assert f"`Named[Factory]` is `{alias}`" in (DOCS / "plugins.md").read_text("utf-8")


# --- configuration ----------------------------------------------------------------------------

SETTINGS = re.compile(r"^```\{settings\} (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_setting_has_a_value_and_one_reason() -> None:
    told = dict(SETTINGS.findall((DOCS / "configuration.md").read_text("utf-8")))
    assert told.keys() == {"Timing", "Limits", "Network", "FaultSettings"}
    for name, body in told.items():
        reasons = from_source.reasons_of(body.splitlines())
        made = from_source.settings_table(name, reasons)  # raises for a reason too few or too many
        assert len(made.splitlines()) == 2 + len(from_source.settings(name))


@pytest.mark.parametrize(
    ("reasons", "complaint"),
    [
        ({}, "client_backoff_floor_us has 0 reasons"),
        ({"heartbeat_us": "twice"}, "heartbeat_us has 2 reasons"),
        ({"gone_us": "was removed"}, "has no gone_us"),
    ],
)
def test_reasons_too_few_and_too_many_are_noticed(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[str, str], complaint: str
) -> None:
    found = [
        from_source.Setting("heartbeat_us", "50 ms", "it lives"),
        from_source.Setting("client_backoff_floor_us", "20 ms", ""),
    ]
    monkeypatch.setattr(from_source, "settings", lambda name: found)
    with pytest.raises(ValueError, match=complaint):
        from_source.settings_table("Timing", reasons)


def test_values_are_shown_as_people_write_them() -> None:
    shown = {setting.name: setting.value for setting in from_source.settings("Limits")}
    assert shown["session_kept_us"] == "24 h"
    assert shown["keys_kept_us"] == "7 days"
    assert shown["message_bytes"] == "4 MiB"
    assert shown["level_max"] == "2⁶³ − 1"
    assert shown["lines_per_command"] == "5,000"


# --- the command line -------------------------------------------------------------------------


def test_every_command_is_documented_with_its_options() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    told = re.findall(r"^### `distinv (\S+)`$", text, re.MULTILINE)
    assert sorted(told) == sorted(from_source.command_parsers())
    tables = re.findall(r"^```\{command-options\} (\S+)$", text, re.MULTILINE)
    with_options = [name for name in told if from_source.command_options(name)]
    assert sorted(tables) == sorted([*with_options, "network", "client"])


def test_the_overview_names_every_command() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    overview = readme[readme.index("## Command line") : readme.index("## Examples")]
    named = re.findall(r"`(?:distinv )?([a-z][a-z-]*)`", overview)
    assert sorted(named) == sorted(from_source.command_parsers())


# --- the library ------------------------------------------------------------------------------


def test_every_error_stands_in_the_table() -> None:
    rows = table(DOCS / "inventory.md", ("error", "code", "retryable", "meaning"))
    told = {code(row["error"]): (code(row["code"]), row["retryable"]) for row in rows}
    built = {
        name: (kind.code, "yes" if kind.retryable else "no")
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.DistinvError)
    }
    assert told == built


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    told = set(re.findall(r"^\.\. auto\w+:: distinv\.(\w+)$", text, re.MULTILINE))
    in_tables = {name for name in distinv.__all__ if hasattr(errors, name)}
    assert "automodule:: distinv.errors" in text
    assert sorted(set(distinv.__all__) - in_tables) == sorted(told - {"errors"})


def test_the_changelog_names_the_version() -> None:
    changelog = (DOCS.parent / "CHANGELOG.md").read_text("utf-8")
    project = (DOCS.parent / "pyproject.toml").read_text("utf-8")
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert version in changelog
    assert changelog.startswith("# Changelog\n")
    assert "## [Unreleased]" in changelog
