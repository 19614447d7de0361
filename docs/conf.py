"""How the documentation is built: `sphinx-build -W -b html docs docs/_build`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "distinv"
author = "The distinv authors"
release = version = installed_version("distinv")

extensions = ["myst_parser", "sphinx.ext.autodoc", "from_source"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"distinv {release}"

myst_heading_anchors = 3  # links to headings are checked like any other
myst_enable_extensions = ["deflist"]

default_role = "code"  # docstrings write `name` for code
autoclass_content = "both"  # what a constructor takes stands in its own docstring
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
