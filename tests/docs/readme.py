"""What README.md promises under "Quick start": the two commands, read from it.

    python tests/docs/readme.py README.md test        prints the second command

Used by the tests beside this file and by `.ci/run`, before anything is installed: so this file
knows the standard library only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COMMANDS = ("demo", "test")
"""The first block runs the demo, the second one the tests."""

_SECTION = re.compile(r"^## Quick start\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_SH_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def quick_start(readme: str) -> str:
    """The section of that name. Raises ValueError when there is not exactly one."""
    sections = _SECTION.findall(readme)
    if len(sections) != 1:
        raise ValueError(f"README.md has {len(sections)} sections named Quick start")
    return str(sections[0])


def commands(readme: str) -> dict[str, str]:
    """The commands by name. Raises ValueError unless there are two blocks of one line each."""
    blocks = [block.strip("\n") for block in _SH_BLOCK.findall(quick_start(readme))]
    if len(blocks) != len(COMMANDS) or any("\n" in block or not block for block in blocks):
        raise ValueError("Quick start holds exactly two sh blocks, of one line each")
    return dict(zip(COMMANDS, blocks, strict=True))


if __name__ == "__main__":
    print(commands(Path(sys.argv[1]).read_text("utf-8"))[sys.argv[2]])
