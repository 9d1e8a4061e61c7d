"""Text of Python's language reference, which every CPython includes."""

import sys
from pydoc_data.topics import topics

from experiments.data._text_file import as_text, Text


def python_reference() -> Text:
    """Return the help topics of the running Python as one text, ordered by name.

    The text depends on the version of Python, so scores on the text differ slightly
    from version to version. The few dozen characters outside ASCII, of half a million,
    become "?".
    """
    text = "\n".join(topics[name] for name in sorted(topics))
    text = text.encode("ascii", "replace").decode()
    return as_text(text, f"pydoc_data.topics of Python {sys.version.split()[0]}")
