"""A process that is killed in the middle of its commits loses nothing it acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from storage_kit import look, reopened

from distinv.testing.conformance.written import IDENTITY

WRITER = """
import sys
from storage_kit import journal
from distinv.testing.conformance.written import IDENTITY, log_of, records_of
from distinv.storage.files import Files

storage = journal(sys.argv[1], Files())
storage.recover()
storage.commit([IDENTITY])
for entry in log_of(*(b"x" * (number * 37 % 1_500) for number in range(3_000))):
    storage.commit(records_of([entry]))
    print(entry.index, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 100])
def test_killed(acknowledged: int, tmp_path: Path) -> None:
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{here}:{here.parent.parent}"},
    ) as writer:
        assert writer.stdout is not None
        last = 0
        while last < acknowledged:
            last = int(writer.stdout.readline())
        writer.kill()
        last = max([last, *map(int, writer.stdout.read().split())])
    found, _ = look(tmp_path)
    assert found.node == IDENTITY.node
    assert len(found.entries) in (last, last + 1), "the one under way may be there or not"
    storage, recovered = reopened(tmp_path)
    assert tuple(recovered.entries) == found.entries
    storage.close()
