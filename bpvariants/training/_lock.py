"""Lock of a folder or a file, so that only one process at a time writes to it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bpvariants._settings import check_path


@contextmanager
def locked(directory: str | os.PathLike, name: str = "directory") -> Iterator[None]:
    """Lock a folder during the `with` block against other processes and trainings.

    The folder is created if it does not exist. The operating system releases the lock
    when the process ends, even after kill -9. The process that holds the lock writes
    its id and host to the file `.lock` in the folder, for error messages. On Windows,
    and on a file system without locks, nothing is locked.

    Args:
      directory: the folder to lock.
      name: name of the argument by which the user gave the folder, for error messages.

    Raises:
      ValueError: if another process, or another `with` block, holds the lock; or if the
        folder cannot be written to.

    Example:
      >>> import tempfile
      >>> from bpvariants import training
      >>> folder = tempfile.mkdtemp()
      >>> with training.locked(folder):
      ...     try:
      ...         with training.locked(folder):
      ...             pass
      ...     except ValueError as error:
      ...         print("is in use by process" in str(error))
      True
    """
    check_path(name, directory)
    with Lock.of_folder(Path(directory).absolute(), name):
        yield


class Lock:
    """A lock, held from its creation until `release` is called or the process ends.

    If a lock is used as a context manager, it is released at the end of the block.
    """

    def __init__(self, path: Path, name: str, locked: Path):
        """Acquire the lock file `path`; raise a ValueError if another process holds it.

        `locked` is the folder or file to lock, and `name` is the name of the argument
        by which the user gave that folder or file; both are for error messages.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._take(name, locked)
        except OSError as error:
            raise ValueError(
                f"{name} {locked} cannot be written to: {error.strerror}. Choose "
                f"another {name}."
            ) from error

    @classmethod
    def of_folder(cls, folder: Path, name: str) -> "Lock":
        """Acquire the lock of a folder."""
        return cls(folder / ".lock", name, folder)

    @classmethod
    def of_file(cls, file: Path, name: str) -> "Lock":
        """Acquire the lock of a file, without locking other files in its folder."""
        return cls(file.with_name(f".{file.name}.lock"), name, file)

    def __enter__(self) -> None:
        """Do nothing, because the constructor has acquired the lock."""

    def __exit__(self, *exception: Any) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, and delete the lock file."""
        with suppress(OSError):  # the folder may have been deleted
            self._path.unlink()
        self._file.close()

    def _take(self, name: str, locked: Path) -> Any:
        while True:
            file = self._path.open("a+")
            if _hold(file):
                if self._is(file):
                    file.truncate(0)
                    me = {"pid": os.getpid(), "host": socket.gethostname()}
                    file.write(json.dumps(me))
                    file.flush()
                    return file
                file.close()  # the process that held the lock has deleted this file
                continue
            file.seek(0)
            holder = _parsed(file.read())
            if not _is_dead(holder):
                file.close()
                who = "another training"
                if holder:
                    who = f"process {holder['pid']} on {holder['host']}"
                raise ValueError(
                    f"{name} {locked} is in use by {who}. Wait until it has ended, or "
                    f"choose another {name}."
                )
            if self._is(file):  # a child of the ended process has it
                self._path.unlink(missing_ok=True)
            file.close()

    def _is(self, file: Any) -> bool:
        """Return whether an open file is still the file at the path of the lock."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False


def _hold(file: Any) -> bool:
    """Lock an open file; return False if a process or a `with` block has locked it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _parsed(text: str) -> dict[str, Any]:
    """Return the process named in a lock file's text, or {} if the text names none."""
    with suppress(ValueError, TypeError):
        found = json.loads(text)
        return {"pid": int(found["pid"]), "host": found["host"]}
    return {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Return whether the lock's holder was a process of this machine and has ended."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
