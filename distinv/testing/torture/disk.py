"""A small disk that fills up and is freed again: a tmpfs, with a ballast file on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from distinv.testing.torture.privileges import NotPermitted, name_of, require_root, run_command

_STEPS_BYTES = (1 << 20, 1 << 16, 1 << 12)


class SmallDisk:
    """One mounted tmpfs. Made by `mount`, and gone after `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @classmethod
    def mount(cls, path: Path, size_bytes: int) -> SmallDisk:
        """Mount one over the directory `path`, which is made. Raises NotPermitted."""
        require_root("mount")
        path.mkdir(parents=True, exist_ok=True)
        options = f"size={size_bytes},mode=0700"
        run_command("mount", "-t", "tmpfs", "-o", options, name_of("disk"), str(path))
        return cls(path)

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._ballast.open("ab") as file:
            for step_bytes in _STEPS_BYTES:
                self._grow(file.fileno(), step_bytes)

    def _grow(self, file: int, step_bytes: int) -> None:
        size = os.fstat(file).st_size
        while True:
            try:
                os.posix_fallocate(file, size, step_bytes)
            except OSError:
                return
            size += step_bytes

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """Unmount it, also while somebody still has a file open there.

        What is on it is gone, unless it is to be kept: in a directory beside it, `….disk`.
        """
        if keep:
            self.free()
            shutil.copytree(self.path, self.path.with_name(f"{self.path.name}.disk"))
        try:
            run_command("umount", "--lazy", str(self.path))
        except NotPermitted:
            pass  # it is gone already
