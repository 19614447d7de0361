"""`distinv` as a test runs it: in this process, with what it printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import frozen

from distinv.cli.main import main


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
