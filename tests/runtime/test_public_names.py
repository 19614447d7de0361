"""What `import distinv` offers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import distinv
from distinv import errors


def test_every_public_name_is_there() -> None:
    assert len(set(distinv.__all__)) == len(distinv.__all__)
    for name in distinv.__all__:
        assert getattr(distinv, name) is not None
        assert name in dir(distinv)
    with pytest.raises(AttributeError, match="no attribute 'Inventory'"):
        distinv.Inventory  # noqa: B018


def test_every_error_is_public() -> None:
    tree = ast.parse(Path(errors.__file__).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert names <= set(distinv.__all__)


def test_type_checkers_and_programs_see_the_same_names() -> None:
    tree = ast.parse(Path(distinv.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in typed.body for alias in getattr(node, "names", ())}
    assert seen == set(distinv.__all__)


def test_importing_distinv_loads_nothing_else() -> None:
    program = "import json, sys, distinv; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name for name in json.loads(ran.stdout) if name.startswith("distinv")}
    assert loaded == {"distinv"}
