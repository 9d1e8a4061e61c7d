"""Ctrl-C and SIGTERM: between chunks, and by all processes of a training at once."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax.experimental import multihost_utils

from bpvariants.types import PyTree

_numbers = itertools.count()  # of the chunks that processes have taken together


@contextmanager
def held(*, forget: bool = False) -> Iterator[None]:
    """Keep signals back within the block, however often they come; raise afterwards.

    What a chunk is given to write over is lost if it does not come to an end, and a
    file is torn. With `forget` nothing is raised: for what ends a training anyway.
    Only the main thread is interrupted, and only Python's handlers can be put back.
    """
    came: dict[int, Any] = {}
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = _handler_of(number)
        if callable(handler):  # not ignored already, and of Python's making
            before[number] = handler
            signal.signal(number, lambda number, frame: came.update({number: frame}))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if forget:
        came.pop(signal.SIGINT, None)
    for number in sorted(came, reverse=True):  # SIGTERM first: it is remembered
        with suppress(*[KeyboardInterrupt] * forget):
            before[number](number, came[number])


@contextmanager
def remembered() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C has come in the block.

    A KeyboardInterrupt is lost where nobody can catch it: for example in a callback of
    the garbage collector, and JAX has such callbacks.
    """
    came: list[int] = []
    if _handler_of(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def interrupt(number, frame):
        came.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM, which schedulers send before they kill, be as Ctrl-C in the block.

    Gives what tells whether it has come. After the block the signal comes again: the
    process ends by it, as it would have without this, unless it has a handler of its
    own.
    """
    before, came = _handler_of(signal.SIGTERM), []
    if before is None or before == signal.SIG_IGN:
        yield lambda: False
        return

    def interrupt(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def together() -> Iterator[Callable[[], bool]]:
    """Give what tells, after each chunk, whether all processes are to end there.

    JAX takes the SIGTERM that one of them is sent, and finds a chunk that none has
    begun. Ctrl-C is made into that; only a second one interrupts at once, and alone.
    """
    before = _handler_of(signal.SIGINT)

    def tell_all(number, frame):
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGTERM)

    def all_end():
        with suppress(RuntimeError):  # if jax_enable_preemption_service is off
            return multihost_utils.reached_preemption_sync_point(next(_numbers))
        return False

    if callable(before):
        signal.signal(signal.SIGINT, tell_all)
    try:
        yield all_end
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)


def is_shared(tree: PyTree) -> bool:
    """Return whether other processes have a part of some array."""
    return any(
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        for leaf in jax.tree.leaves(tree)
    )


def _handler_of(number: int) -> Any:
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(number) if main else None
