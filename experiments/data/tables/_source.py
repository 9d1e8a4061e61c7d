"""Compression and encoding of a user's text file."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
OTHER_FILES = {
    b"PK\x03\x04": "a workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old workbook",
    b"PAR1": "a Parquet file",
}
MARKS = {  # UTF-32 comes first, because its mark begins with UTF-16's mark
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
BLOCK = 1 << 16  # number of bytes to read at a time
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


class Source(NamedTuple):
    """A text file that can be opened several times."""

    path: Path
    open_bytes: Callable[[Path], Any]
    encoding: str
    notes: tuple[str, ...]

    def open(self) -> TextIO:
        """Open the file as text, without conversion of newline characters."""
        file: BinaryIO = self.open_bytes(self.path)
        return io.TextIOWrapper(file, self.encoding, newline="")


def find_source(path: Path, encoding: str | None = None) -> Source:
    """Infer how a file is compressed and encoded.

    If the file begins with a byte order mark, the mark names the encoding. Without a
    mark, UTF-16 is recognised by its zero bytes, and a file is read as UTF-8 if the
    whole file is valid UTF-8. Any other file is read as Windows-1252 (or Latin-1), with
    a note for the user.

    Args:
      path: a text file, possibly compressed by gzip, bzip2 or xz.
      encoding: encoding of the file; None to infer it.

    Raises:
      ValueError: if the file does not exist, is not text, is damaged, or cannot be read
        in the given encoding.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    with path.open("rb") as file:
        begin = file.read(8)
    for mark, kind in OTHER_FILES.items():
        if begin.startswith(mark):
            raise ValueError(f"{path} is {kind}, not text: save the table as CSV.")
    open_bytes = next(
        (how for mark, how in COMPRESSED.items() if begin.startswith(mark)),
        lambda path: path.open("rb"),
    )
    try:
        with open_bytes(path) as file:
            head = file.read(BLOCK)
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged, or cut short: {error}.") from None
    if encoding is not None:
        _check(path, open_bytes, _known(encoding), f"--encoding {encoding}")
        return Source(path, open_bytes, encoding, ())
    found = _by_marks(head) or _by_zeros(path, head)
    if found:
        _check(path, open_bytes, found, found)
        return Source(path, open_bytes, found, ())
    if _fault(path, open_bytes, "utf-8") is None:
        return Source(path, open_bytes, "utf-8", ())
    found = "cp1252" if _fault(path, open_bytes, "cp1252") is None else "latin-1"
    note = f"{path.name} is not UTF-8; it is read as {found} (else give --encoding)."
    return Source(path, open_bytes, found, (note,))


def _known(encoding: str) -> str:
    try:
        if codecs.lookup(encoding)._is_text_encoding:  # False for codecs such as base64
            return encoding
    except LookupError:
        pass
    raise ValueError(
        f"encoding must be one that Python knows, such as utf-8, utf-16 or cp1252; "
        f"got {encoding!r}."
    )


def _by_marks(head: bytes) -> str | None:
    """Return the encoding of the byte order mark at the start of the file, or None."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), None)


def _by_zeros(path: Path, head: bytes) -> str | None:
    """Return the variant of UTF-16 that zero bytes suggest; None without zero bytes.

    In UTF-16, every second byte of an English text is zero.
    """
    if 0 not in head:
        return None
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[start::2], head[1 - start :: 2]
        if zeros.count(0) > len(zeros) / 2 and not others.count(0):
            return name
    raise ValueError(f"{path} has zero bytes, so it is not text: save it as CSV.")


def _check(path: Path, open_bytes, encoding: str, what: str) -> None:
    fault = _fault(path, open_bytes, encoding)
    if fault is not None:
        raise ValueError(f"{path} is not text in {what}: {fault}.")


def _fault(path: Path, open_bytes, encoding: str) -> str | None:
    """Return the reason why a file cannot be read in an encoding, or None if it can."""
    decoder, more = codecs.getincrementaldecoder(encoding)(), True
    begin = start = 0
    try:
        with open_bytes(path) as file:
            while more:
                begin = start - len(decoder.getstate()[0])  # next byte to decode
                block = file.read(BLOCK)
                start, more = start + len(block), bool(block)
                decoder.decode(block, final=not more)
    except UnicodeDecodeError as error:
        return f"{error.reason} at byte {begin + error.start}"
    except UnicodeError as error:  # for example, the byte order mark is missing
        return str(error)
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged, or cut short: {error}.") from None
    return None
