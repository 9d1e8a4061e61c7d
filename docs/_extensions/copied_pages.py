"""Sphinx extension: copy pages of the repository into the site, and adapt links.

Sphinx reads only files below docs/. This extension copies the READMEs of the studies,
the changelog, the guide for contributors and the notebooks to docs/_copied/, which git
ignores. Links between files of the repository work on GitHub as they are; here they
are rewritten, so that they lead to pages of the site.
"""

import os
import pathlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = pathlib.Path(__file__).parent.parent
ROOT = DOCS.parent
COPIED = DOCS / "_copied"
# Pictures of notebooks, which have addresses so that Colab shows them.
PICTURE = re.compile(r"\]\(https://raw\.githubusercontent\.com/[\w/-]+/main/docs/")
# Inline links, with their title in brackets, and images.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def copies() -> dict[pathlib.Path, pathlib.Path]:
    """Return {page of the repository: its copy in docs/_copied}."""
    pages = {
        ROOT / "CHANGELOG.md": COPIED / "changelog.md",
        ROOT / "CONTRIBUTING.md": COPIED / "contributing.md",
    }
    for page in sorted((ROOT / "experiments").rglob("README.md")):
        folder = page.parent.relative_to(ROOT / "experiments")
        name = "applications/index" if str(folder) == "applications" else str(folder)
        pages[page] = COPIED / "studies" / f"{name}.md"
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages[notebook] = COPIED / "notebooks" / notebook.name
    return pages


def with_site_links(
    text: str, page: pathlib.Path, place: pathlib.Path, shown: set[pathlib.Path]
) -> str:
    """Rewrite the links of a page of the repository for its place in the site.

    Links to files that the site does not show become plain text.

    Args:
      text: the text of the page.
      page: the file in the repository, from which links start.
      place: the file that Sphinx reads, `page` itself or its copy.
      shown: files in the repository that are pages of the site.
    """
    moved = copies()

    def rewrite(link: re.Match) -> str:
        image, title, target = link.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"\w+:", path):
            return link[0]
        file = (page.parent / path).resolve()
        if file == ROOT / "README.md":
            file = DOCS / "index.md"
        if not image and file not in shown:
            return title
        there = moved.get(file, file)
        new = pathlib.PurePath(os.path.relpath(there, place.parent)).as_posix()
        return f"{image}[{title}]({new}{hash_}{anchor})"

    return LINK.sub(rewrite, text)


def copy_pages(app: "Sphinx") -> None:
    """Write docs/_copied anew; keep the times of files that have not changed."""
    pages, shown = copies(), shown_files()
    for page, place in pages.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text()
        if page.suffix == ".md":
            text = with_site_links(text, page, place, shown)
        else:
            text = PICTURE.sub("](../../", text)
        if not place.exists() or place.read_text() != text:
            place.write_text(text)
    for file in COPIED.rglob("*.*"):
        if file not in pages.values():
            file.unlink()


def shown_files() -> set[pathlib.Path]:
    """Return the files of the repository that the site shows, or offers to download."""
    pages = {*copies(), *DOCS.glob("*.md"), *DOCS.glob("api/*.rst")}
    return pages | {*DOCS.glob("conformance/*.*")}


def adapt_links(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Rewrite links of a page in docs/, which Sphinx is about to read.

    Lines of a toctree such as `resets*` are left out if they match no page, because
    Sphinx would warn.
    """
    page = DOCS / f"{docname}.md"
    if page.exists() and COPIED not in page.parents:
        text = with_site_links(source[0], page, page, shown_files())
        matches = lambda line: line[0] if any(DOCS.glob(f"{line[1]}.*")) else ""
        source[0] = re.sub(r"^([\w/]+\*)\n", matches, text, flags=re.MULTILINE)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connect the functions above to the steps of Sphinx."""
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", adapt_links)
    return {"parallel_read_safe": True}
