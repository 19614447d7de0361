"""A cluster to ask, and the command line to ask it with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import frozen

from distinv.cli.main import main
from distinv.testing.processes import ServerProcesses


@frozen
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object printed last."""
        return json.loads(self.out.splitlines()[-1])


class CommandLine:
    def __init__(self, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self._capsys = capsys
        self._options = options

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        try:
            status = main([*arguments, *self._options])
        except SystemExit as usage:
            status = int(str(usage.code))
        printed = self._capsys.readouterr()
        return Ran(status, printed.out, printed.err)


@pytest.fixture
def distinv(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line by itself."""
    return CommandLine(capsys)


@pytest.fixture(scope="session")
def one_server() -> Iterator[ServerProcesses]:
    """A cluster of one server process, for all commands of this folder."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ServerProcesses(1, cluster="cli")) as servers,
    ):
        yield servers


@pytest.fixture
def shop(one_server: ServerProcesses, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, asking that cluster."""
    return CommandLine(capsys, *one_server.client_arguments)
