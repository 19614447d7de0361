"""For every test: asyncio and trio, properties that draw the same everywhere, `--regenerate`."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("same-every-time", deadline=None, derandomize=True)
settings.load_profile("same-every-time")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write what the scenes of tests/transcripts say now into their files",
    )
