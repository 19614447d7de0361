"""A third party's election: installed as a package, found by its entry point, and it elects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "lowest_load_election"

LOOK = """
import json
from random import Random
from distinv.config import Timing
from distinv.election.api import ElectionContext, Nominate
from distinv.entry import NodeId
from distinv.plugins.manager import Plugins

plugins = Plugins()
election = plugins.election("lowest-load")(ElectionContext(NodeId(1), Random(1), Timing()))
list(election.on_members((NodeId(1), NodeId(2)), 0))
list(election.on_suspect(NodeId(2), 0))
actions = list(election.on_deadline(Timing().election_answer_us))
print(json.dumps({
    "listing": [[row.kind, row.name, str(row.origin)] for row in plugins.listing()],
    "nominates": [action.node for action in actions if isinstance(action, Nominate)],
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed by pip into a directory of its own."""
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(PACKAGE)],
        check=True,
        capture_output=True,
    )
    return target


def look(*path: Path) -> dict[str, list[object]]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(str(entry) for entry in path))
    found = subprocess.run(
        [sys.executable, "-c", LOOK], check=True, capture_output=True, env=environment, cwd=ROOT
    )
    answer: dict[str, list[object]] = json.loads(found.stdout)
    return answer


def test_it_is_found_by_its_entry_point_and_elects(site: Path) -> None:
    answer = look(site, ROOT)
    assert ["election", "lowest-load", "distinv-lowest-load-election 1.0.0"] in answer["listing"]
    assert answer["nominates"] == [1]


def test_without_it_nothing_is_found() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        look(ROOT)
    assert b"there is no election 'lowest-load'; choose one of: bully, ring" in raised.value.stderr


def test_building_leaves_nothing_in_the_source_tree(site: Path) -> None:
    kept = sorted(path.name for path in PACKAGE.iterdir() if path.name != "__pycache__")
    assert kept == [
        "README.md",
        "lowest_load_election.py",
        "pyproject.toml",
        "test_lowest_load_election.py",
    ]
