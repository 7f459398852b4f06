"""How Sphinx builds these pages: `make docs`. Nothing is fetched, and a warning is an error."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "mcip"
author = "the authors of mcip"
copyright = "the authors of mcip, Apache-2.0"
release = version = importlib.metadata.version("mcip")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference",
]
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
# The language of cells is known once a notebook was run, which `make check` does not.
suppress_warnings = ["myst.header", "myst-nb.lexer"]

html_theme = "furo"
html_title = f"mcip {version}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "default"
pygments_dark_style = "github-dark"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Tutorials are notebooks. Each runs once, in a folder of its own, until its text changes.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_markdown_format = "myst"
# Progress bars and notes.
nb_output_stderr = "remove"

# In docstrings, `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
