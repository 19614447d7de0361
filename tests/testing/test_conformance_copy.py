"""A live directory is copied whole, whatever a storage's own thread renames meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distinv.testing.conformance.written import COPY_TRIES, copy_live


def test_what_is_renamed_between_listing_and_copying_is_copied_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen with the journal, which makes its next segment in a thread."""
    node = tmp_path / "node"
    node.mkdir()
    (node / "next.unfinished").write_bytes(b"segment")
    copy_file = shutil.copy2

    def renamed_first(source: str, target: str, **options: bool) -> str:
        if source.endswith("unfinished"):
            Path(source).rename(node / "2.segment")
        return copy_file(source, target, **options)

    copy_tree = shutil.copytree
    monkeypatch.setattr(
        shutil, "copytree", lambda old, new: copy_tree(old, new, copy_function=renamed_first)
    )
    copy_live(node, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["2.segment"]
    assert (tmp_path / "copy" / "2.segment").read_bytes() == b"segment"


def test_what_cannot_be_copied_at_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(old: Path, new: Path) -> None:
        tries.append(new)
        new.mkdir()
        raise shutil.Error([(str(old), str(new), "no space left")])

    monkeypatch.setattr(shutil, "copytree", fails)
    with pytest.raises(shutil.Error, match="no space left"):
        copy_live(tmp_path, tmp_path / "copy")
    assert len(tries) == COPY_TRIES
