"""Ctrl-C between chunks: while the state is being replaced, it has to wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held(*, forget: bool = False) -> Iterator[None]:
    """Keep Ctrl-C back within the block, however often it comes; raise it afterwards.

    What a chunk is given to write over is lost if it does not come to an end, and a
    file is torn. With `forget` nothing is raised: for what ends a training anyway.
    Only the main thread is interrupted, and only Python's handlers can be put back.
    """
    came = []
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    if not callable(before):  # ignored already, or not of Python's making
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and not forget:
        before(*came[0])
