"""Files that are not committed: from $BPVARIANTS_DATA, else from their own place."""

import hashlib
import os
from pathlib import Path

import pooch

FOLDER = "BPVARIANTS_DATA"


def find(path: str, sha256: str) -> Path | None:
    """Return a file below $BPVARIANTS_DATA, its sum checked; None if there is none."""
    folder = os.environ.get(FOLDER)
    if not folder or not (Path(folder) / path).exists():
        return None
    found = Path(folder) / path
    got = hashlib.sha256(found.read_bytes()).hexdigest()
    if got != sha256:
        raise SystemExit(
            f"{found} is not the file that was expected: its sha256 is {got}, not "
            f"{sha256}. Remove it, or unset {FOLDER}."
        )
    return found


def fetch(url: str, sha256: str, path: str) -> Path:
    """Download a file to the user's cache, once; its sum is checked."""
    cache = pooch.os_cache("bpvariants")
    target = Path(path)
    try:
        got = pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=target.name,
            path=cache / target.parent,
        )
    except (OSError, ValueError) as error:  # no network, or another file
        raise SystemExit(
            f"{path} could not be had from {url}: {error}\nGet it by other means, and "
            f"put it to {cache / path}."
        ) from error
    return Path(got)
