"""Data files that are not committed: found in $BPVARIANTS_DATA, or downloaded."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from experiments.harness.errors import DataError

FOLDER = "BPVARIANTS_DATA"


def find(path: str, sha256: str) -> Path | None:
    """Return the path of a data file in the folder $BPVARIANTS_DATA.

    Return None if the variable is not set, or if the folder does not have the file.

    Raises:
      DataError: if the folder has the file, but with a wrong sha256.
    """
    folder = os.environ.get(FOLDER)
    if not folder or not (Path(folder) / path).exists():
        return None
    found = Path(folder) / path
    got = _sum(found)
    if got != sha256:
        raise DataError(
            f"{found} is not the file that was expected: its sha256 is {got}, not "
            f"{sha256}. Remove it, or unset {FOLDER}."
        )
    return found


def fetch(url: str | tuple[str, ...], sha256: str | None, path: str) -> Path:
    """Download a file, unless the user's cache has it already; check its sha256.

    `url` is one address, or several that are tried in order. `sha256` may be None for
    an archive whose bytes may change; in this case, the caller must check the files in
    the archive.
    """
    cache = pooch.os_cache("bpvariants")
    target = Path(path)
    errors, bar = [], cast(Any, _Bar(target.name))  # pooch declares another type
    downloader = cast(Any, pooch.HTTPDownloader(progressbar=bar))
    for address in (url,) if isinstance(url, str) else url:
        try:
            got = pooch.retrieve(
                address,
                known_hash=None if sha256 is None else f"sha256:{sha256}",
                fname=target.name,
                path=cache / target.parent,
                downloader=downloader,
            )
            return Path(got)
        except (OSError, ValueError) as error:  # no network, or a wrong sha256
            errors.append(f"{path} could not be downloaded from {address}: {error}")
    failed = "\n".join(errors)
    raise DataError(
        f"{failed}\nGet it by other means, and save it as {cache / path}.\nOr set "
        f"{FOLDER} to a folder that has all data sets, this one in its subfolder "
        f"{target.parent}{os.sep}; {_what_it_names()}."
    )


def make(path: str, sha256: str, content: Callable[[], bytes]) -> Path:
    """Return the path of a file in the cache; make it if it is missing or damaged.

    `content` is a function that returns the bytes of the file.
    """
    target = pooch.os_cache("bpvariants") / path
    if target.exists() and _sum(target) == sha256:
        return target
    made = content()
    got = hashlib.sha256(made).hexdigest()
    if got != sha256:
        raise DataError(
            f"{path}, as made here, is not what was expected: its sha256 is {got}, not "
            f"{sha256}. Nothing was written."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=target.parent)
    try:  # write `part`, then rename it, so that `target` is never incomplete
        with open(descriptor, "wb") as file:
            file.write(made)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return target


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _what_it_names() -> str:
    folder = os.environ.get(FOLDER)
    return f"now it is {folder}, without this file" if folder else "now it is not set"


class _Bar:
    """Progress bar in the terminal, with the methods that pooch calls."""

    def __init__(self, name: str):
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task(f"downloading {name}", total=None)

    @property
    def total(self) -> float | None:
        """Total number of bytes; pooch sets this property when a download begins."""
        return self._bars.tasks[0].total

    @total.setter
    def total(self, total: int) -> None:
        self._bars.update(self._task, total=total or None)
        self._bars.start()

    def update(self, size: int) -> None:
        self._bars.advance(self._task, size)

    def reset(self) -> None:
        self._bars.reset(self._task, total=self._bars.tasks[0].total)

    def close(self) -> None:
        self._bars.stop()

    def __del__(self):
        """Remove the progress bar after a failed download; pooch does not remove it."""
        self._bars.stop()
