"""Settings of the documentation site.

    pip install -e ".[docs]" && python -m sphinx -W docs docs/_build

builds the site without a network; every warning is an error. Two variables change the
build:

- BPVARIANTS_DOCS_EXECUTE=1 executes the notebooks, and caches their outputs in
  docs/_build. It also needs the extra `experiments`. Otherwise, notebooks are shown
  with the outputs that are stored in them.
- BPVARIANTS_DOCS_ONLINE=1 links types of jax, optax and flax to their documentation.
  Sphinx then downloads the lists of names of these sites. Without a network, each list
  would be a warning, and so an error.
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
sys.path.insert(0, str(HERE.parent))

import bpvariants

project = "bpvariants"
author = "the authors of bpvariants"
copyright = "the authors of bpvariants. License: Apache-2.0"
version = release = bpvariants.__version__

extensions = [
    "copied_pages",
    "docstring_markup",
    "indices",
    "mathml",
    "myst_nb",
    "notebook_pictures",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_extensions", "jupyter_execute", "**/.ipynb_checkpoints"]

# Pages in Markdown, and notebooks.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # so that $ may be dollars
html_math_renderer = "mathml"
executes = os.environ.get("BPVARIANTS_DOCS_EXECUTE") == "1"
nb_execution_mode = "cache" if executes else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# The API reference, from docstrings. Names in single backticks become links if they are
# names of the library, and code otherwise.
default_role = "py:obj"
add_module_names = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Links to the documentation of other libraries; see the docstring above.
if os.environ.get("BPVARIANTS_DOCS_ONLINE") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/latest", None),
    }

# The copy button leaves out prompts and printed results of doctests.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = f"bpvariants {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has a search field
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
