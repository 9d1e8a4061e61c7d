"""Standard output that can show every text, whatever its encoding."""

import codecs
import sys
import unicodedata

# Of the characters in tables; accents, superscripts and subscripts are dropped, and
# others become "?".
PLAIN = dict(
    zip(
        "×·–—−±→≤≥≈’‘“”√∂δΔηθλμρσβκℓ‖′°",
        "x.---~><>~''\"\"VddDhqlmrsbkl|'o",
        strict=True,
    )
)


def show_every_text() -> None:
    """Let prints replace what the encoding of the terminal or pipe does not have.

    Without this, "×" in a table ends a study if Python prints in ASCII. A character is
    replaced by a single one, so that tables stay aligned. Bytes of file names that are
    not UTF-8 are printed as they are.
    """
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # not in notebooks
            reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":  # a byte, as os.fsdecode keeps it
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    simple = unicodedata.normalize("NFKD", letter)[0]
    return PLAIN.get(simple, simple if simple.isascii() else "?"), error.start + 1
