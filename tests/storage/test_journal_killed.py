"""A process that is killed in the middle of its commits loses nothing it acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from storage_kit import look, reopened, segment_names

from distinv.testing.conformance.written import IDENTITY, compacting, log_of, records_of

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


COMPACTING_WRITER = """
import sys
from storage_kit import journal
from distinv.testing.conformance.written import compacting
from distinv.storage.files import Files

storage = journal(sys.argv[1], Files())
storage.recover()
for number, (records, _) in enumerate(compacting(3_000)):
    storage.commit(records)
    print(number, flush=True)
"""


def killed(path: Path, program: str, acknowledged: int) -> int:
    """Kill a writer once it has said that number; the last one that it said."""
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{here}:{here.parent.parent}"},
    ) as writer:
        assert writer.stdout is not None
        last = 0
        while last < acknowledged:
            last = int(writer.stdout.readline())
        writer.kill()
        return max([last, *map(int, writer.stdout.read().split())])


@pytest.mark.parametrize("acknowledged", [1, 100])
def test_killed(acknowledged: int, tmp_path: Path) -> None:
    last = killed(tmp_path, WRITER, acknowledged)
    found, _ = look(tmp_path)
    assert found.node == IDENTITY.node
    assert len(found.entries) in (last, last + 1), "the one under way may be there or not"
    storage, recovered = reopened(tmp_path)
    assert tuple(recovered.entries) == found.entries
    storage.close()


@pytest.mark.parametrize("acknowledged", [30, 150])
def test_killed_while_it_drops_segments(acknowledged: int, tmp_path: Path) -> None:
    last = killed(tmp_path, COMPACTING_WRITER, acknowledged)
    possible = [expected for _, expected in compacting(last + 1)[last:]]
    found, _ = look(tmp_path)
    assert found in possible, "the one under way may be there or not"
    storage, _ = reopened(tmp_path)
    storage.commit(records_of(log_of(b"on", after=found.entries[-1].position)))
    storage.close()
    assert len(look(tmp_path)[0].entries) == len(found.entries) + 1
    assert segment_names(tmp_path)[0] > 1
