"""What a campaign needs of the machine beyond a user's rights, and how what it left is removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from distinv.errors import DistinvError

PREFIX = "dtv"
"""Of everything that a campaign makes in the system: then its pid, then what it is."""
_COMMAND_S = 10.0


class NotPermitted(DistinvError):
    """This machine, or this user, cannot do it: not a failure, but a reason to leave it out."""

    code = "not_permitted"


def run_command(*command: str) -> str:
    """Run one system command; what it printed. Raises NotPermitted with what it complained of."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPermitted(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise NotPermitted(f"{' '.join(command)}: {complaint}")
    return done.stdout


def require_root(command: str) -> None:
    """Raises NotPermitted for any other user, or without this system command."""
    if os.geteuid() != 0:
        raise NotPermitted("this needs root: it makes network namespaces, links or mounts")
    if shutil.which(command) is None:
        raise NotPermitted(f"the command {command!r} is not installed")


def name_of(part: str) -> str:
    """A name in the system that tells whose it is, short enough for a network namespace."""
    return f"{PREFIX}{os.getpid()}{part}"


def remove_leftovers() -> None:
    """Remove the namespaces and mounts of campaigns that were killed before they could do it."""
    for namespace in _orphans(_namespaces()):
        _try("ip", "netns", "del", namespace)
    for device, path in list(_mounts()):
        if list(_orphans([device])):
            _try("umount", "--lazy", path)


def _orphans(names: list[str]) -> Iterator[str]:
    for name in names:
        found = re.match(rf"{PREFIX}(\d+)[a-z]", name)
        if found and not Path("/proc", found[1]).exists():
            yield name


def _namespaces() -> list[str]:
    try:
        lines = run_command("ip", "netns", "list").splitlines()
    except NotPermitted:
        return []
    return [line.split()[0] for line in lines if line.strip()]


def _mounts() -> Iterator[tuple[str, str]]:
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        device, path, *_ = line.split()
        yield device, path


def _try(*command: str) -> None:
    try:
        run_command(*command)
    except NotPermitted:
        pass  # somebody else was faster
