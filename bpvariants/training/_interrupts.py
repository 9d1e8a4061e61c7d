"""Handling of Ctrl-C and SIGTERM between chunks of steps, in one or more processes."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax.experimental import multihost_utils

from bpvariants.types import PyTree

_numbers = itertools.count()  # counts the ends of chunks of training steps


@contextmanager
def held(*, forget: bool = False) -> Iterator[None]:
    """Delay all SIGINT and SIGTERM signals until the end of the `with` block.

    If a chunk of training steps were interrupted, the arrays that the chunk overwrites
    would be lost; if the writing of a file were interrupted, the file would be
    incomplete. With `forget=True`, a delayed Ctrl-C raises no KeyboardInterrupt after
    the block; use this setting if the training ends anyway. Signals are delayed only in
    the main thread, and only if their handlers are Python functions, because other
    handlers cannot be restored.
    """
    came: dict[int, Any] = {}
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = _handler_of(number)
        if callable(handler):  # not SIG_IGN, SIG_DFL or a handler written in C
            before[number] = handler
            signal.signal(number, lambda number, frame: came.update({number: frame}))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if forget:
        came.pop(signal.SIGINT, None)
    for number in sorted(came, reverse=True):  # raise SIGTERM before SIGINT
        with suppress(*[KeyboardInterrupt] * forget):
            before[number](number, came[number])


@contextmanager
def remembered() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed during the block.

    The function is needed because a KeyboardInterrupt may be lost: Python may raise it
    in code whose exceptions are ignored, such as JAX's garbage-collector callback.
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
    """Treat SIGTERM, which schedulers send before they kill a process, like Ctrl-C.

    Yields a function that returns whether SIGTERM was received. If SIGTERM was received
    in the block, it is raised again after the block. The second SIGTERM ends the
    process, unless the user has installed a handler.
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
    """Yield a function that returns, after each chunk, whether all processes must stop.

    When any process receives SIGTERM, JAX chooses a chunk that no process has started
    yet; all processes stop at that chunk. The first Ctrl-C is converted into SIGTERM. A
    second Ctrl-C interrupts only the process that receives it, immediately.
    """
    before = _handler_of(signal.SIGINT)

    def tell_all(number, frame):
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGTERM)

    def all_end():
        # JAX raises a RuntimeError unless jax_enable_preemption_service is True.
        with suppress(RuntimeError):
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
    """Return whether any array of the tree is partly on devices of other processes."""
    return any(
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        for leaf in jax.tree.leaves(tree)
    )


def _handler_of(number: int) -> Any:
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(number) if main else None
