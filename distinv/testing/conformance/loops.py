"""For the suites of what does I/O: their tests run on both event loops, without any setting up."""

from __future__ import annotations

from importlib.util import find_spec

import anyio
import pytest

from distinv.testing.conformance.suite import Suite

DEADLINE_S = 20
"""For a machine that does other things as well; nothing takes a second by itself."""
ATTEMPT_S = 0.2
"""How long an answer is waited for before a datagram counts as lost, and is sent again."""
ATTEMPTS = 50

ENDED = anyio.ClosedResourceError
"""What ends the wait for something that is closed meanwhile."""


class LoopSuite(Suite):
    """A suite whose tests are async."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """Both, however the project around this chooses its own."""
        if find_spec(request.param) is None:
            pytest.skip(f"{request.param} is not installed")
        return str(request.param)
