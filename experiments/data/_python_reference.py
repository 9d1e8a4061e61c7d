"""Text of Python's language reference, which every CPython includes."""

import sys
from pydoc_data.topics import topics

from experiments.data._text_file import as_text, Text


def python_reference() -> Text:
    """Return the help topics of the running Python as one text, ordered by name.

    The text depends on the version of Python, so the scores of a model on the text
    differ slightly between versions. The text has half a million characters. The few
    dozen characters that are not ASCII become "?".
    """
    text = "\n".join(topics[name] for name in sorted(topics))
    text = text.encode("ascii", "replace").decode()
    return as_text(text, f"pydoc_data.topics of Python {sys.version.split()[0]}")
