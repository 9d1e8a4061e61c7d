"""Text that a study shows in the terminal and on its page.

The functions below, and those that show tables and pictures, add a block to the page
that :func:`~experiments.report.recording` collects; `write_page` writes report.html.
"""

import re
import unicodedata

from rich.text import Text

from experiments.report._blocks import Fragment, Heading, Paragraph, record
from experiments.report._files import writes
from experiments.report._tables import wide_console


def heading(text: str, *, anchor: str = "", level: int = 2) -> None:
    """Begin a section of the page; the terminal shows no heading.

    Args:
      text: the heading.
      anchor: id of the heading in the page; by default it is made from the text.
      level: 2 for a section, 3 for a part of a section.
    """
    record(Heading(text, anchor or slug(text), level))


def say(text: str, *, exact: bool = False) -> None:
    """Print a paragraph, and add it to the page.

    Args:
      text: text with rich's markup, such as "[bold]word[/bold]", which the page leaves
        out.
      exact: whether the text is printed as it is, without markup, and keeps its spaces
        and line breaks in the page.
    """
    if not writes():
        return
    if exact:
        wide_console(recorded=False).print(
            text, markup=False, highlight=False, emoji=False
        )
        record(Paragraph(text.strip("\n"), exact=True))
    else:
        wide_console().print(text)


def conclude(text: str, *, about: str = "") -> None:
    """Print a conclusion from the results, and add it to the page.

    Args:
      text: the conclusion.
      about: what it is about. Only the terminal shows it, because on the page the
        conclusion stands beside its picture.
    """
    if writes():
        told = f"{about}: {text}" if about else text
        wide_console(recorded=False).print(Text(told + "\n", style="bold"))
        record(Paragraph(text, conclusion=True))


def explain(html: str) -> None:
    """Add a piece of HTML to the page; the terminal does not show it."""
    record(Fragment(html))


def slug(text: str) -> str:
    """Return an id for a heading: letters, digits and hyphens.

    Example:
      >>> slug("Digits, MLP 64-32-10: test error in %")
      'digits-mlp-64-32-10-test-error-in'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "part"
