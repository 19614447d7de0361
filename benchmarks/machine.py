"""What the machine is, and what processes cost on it. Linux tells it under /proc."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

_SYNCS = 50
_SYNC_BYTES = 4_096


def describe() -> dict[str, Any]:
    """The machine in a few words: figures from two machines cannot be compared without them."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
        "fdatasync_us": _fdatasync_us(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _fdatasync_us() -> int:
    """The median of small writes over a file that has its size already, as the journal's."""
    took = []
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(_SYNC_BYTES * _SYNCS))
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(_SYNCS):
            began = time.perf_counter_ns()
            file.write(b"\1" * _SYNC_BYTES)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter_ns() - began)
    return round(median(took) / 1_000)


def resident_bytes(pid: int) -> int:
    """The physical memory that a process has now."""
    return _status_bytes(pid, "VmRSS:")


def peak_bytes(pid: int) -> int:
    """The most physical memory that it has had so far."""
    return _status_bytes(pid, "VmHWM:")


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1_024
    raise ProcessLookupError(f"process {pid} has ended")


def cpu_us(pid: int) -> int:
    """The processor time, user and system, that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
