"""A function that lets `print` accept every text, whatever the output's encoding is."""

import codecs
import sys
import unicodedata

# ASCII replacements of characters that occur in tables. Among all other characters,
# letters lose their accents, superscripts and subscripts become plain characters, and
# the remaining characters become "?".
PLAIN = dict(
    zip(
        "×·–—−±→≤≥≈’‘“”√∂δΔηθλμρσβκℓ‖′°",
        "x.---~><>~''\"\"VddDhqlmrsbkl|'o",
        strict=True,
    )
)


def show_every_text() -> None:
    """Make print replace characters that the output's encoding does not have.

    Without this function, "×" in a table raises an error if the output is in ASCII.
    Each character is replaced by one character, so that tables stay aligned. Bytes of
    file names that are not UTF-8 are printed unchanged.
    """
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # stdout in notebooks lacks this method
            reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":  # a byte, as os.fsdecode represents it
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    simple = unicodedata.normalize("NFKD", letter)[0]
    return PLAIN.get(simple, simple if simple.isascii() else "?"), error.start + 1
