"""Check the pages of a built site: links inside it, and descriptions of pictures.

    python -m tests.docs.built_site docs/_build

Sphinx warns about most broken links in the sources. This command reads the HTML that a
reader gets, with what the theme and the notebooks add. It prints each fault, and its
exit status is 1 if there is one.
"""

import pathlib
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

FEWEST = 20  # characters of a description of a picture
ELSEWHERE = ("http", "https", "mailto", "data", "javascript")


class Page(HTMLParser):
    """Ids, addresses and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.pictures: list[tuple[str, str]] = []  # address and description
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "link") and "href" in given:
            self.addresses.append(given["href"])
        if tag in ("img", "script", "iframe") and "src" in given:
            self.addresses.append(given["src"])
        if tag == "img":
            self.pictures.append((given.get("src", ""), given.get("alt", "")))


def faults(folder: pathlib.Path) -> list[str]:
    """Return what is wrong in the pages of a folder, one line each."""
    folder = folder.resolve()
    pages = {
        path: Page(path.read_text())
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts  # templates of the theme
    }
    found = []
    for path, page in pages.items():
        here = path.relative_to(folder)
        for address in page.addresses:
            if fault := _broken(address, path, pages):
                found.append(f"{here}: {fault}: {address}")
        for source, text in page.pictures:
            badge = urlsplit(source).scheme or "logo" in text.lower()
            if len(text) < (1 if badge else FEWEST) or text.endswith(".png"):
                found.append(f"{here}: a picture without a description: {source}")
    return found


def _broken(address: str, path: pathlib.Path, pages: dict[pathlib.Path, Page]) -> str:
    """Say what is wrong with an address on a page; return "" if it leads somewhere."""
    parts = urlsplit(address)
    if parts.scheme in ELSEWHERE or parts.netloc:
        return ""
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    there = there / "index.html" if there.is_dir() else there
    if not there.exists():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and there in pages and anchor not in pages[there].ids:
        return "no such place on the page"
    return ""


def main(folder: str) -> int:
    """Print the faults, and return an exit status."""
    found = faults(pathlib.Path(folder))
    print(*found, sep="\n")
    print(f"{len(found)} faults")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
