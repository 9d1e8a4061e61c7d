"""Check the structure of a report.html."""

import html.parser
import re


class Page(html.parser.HTMLParser):
    """The elements of a page: (tag, attributes), and ids."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open)

    def all(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


def check(text):
    """Check a page: closed elements, viewport, alternative texts, anchors, widths."""
    page = Page(text)
    assert not page.open
    viewport = next(m for m in page.all("meta") if m.get("name") == "viewport")
    assert viewport["content"] == "width=device-width, initial-scale=1"
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.all("a")]
    assert links
    assert all(link[0] == "#" and link[1:] in ids for link in links), links
    # Widths are in units of the screen or of the font, and never attributes.
    assert not re.search(r"[^-]width:\s*\d+px", text)
    assert not any("width" in attributes for attributes in page.all("img"))
    assert "http:" not in text
    assert "https:" not in text
    assert "prefers-color-scheme: dark" in text
    return page
