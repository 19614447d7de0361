"""A cluster to ask, and the command line to ask it with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal
from command_line import CommandLine

from distinv.testing.processes import ServerProcesses


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
