"""Handling of Ctrl-C and SIGTERM between chunks, in one process or in several."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax.experimental import multihost_utils

from bpvariants.types import PyTree

_numbers = itertools.count()  # numbers of the chunk ends at which processes synchronise


@contextmanager
def held(*, forget: bool = False) -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block, however often they come.

    An interrupted chunk would lose the arrays that it overwrites, and an interrupted
    write would leave a torn file. With `forget`, for code that ends a training anyway,
    no KeyboardInterrupt is raised. Only the main thread receives signals, and only
    handlers that are Python functions can be restored.
    """
    came: dict[int, Any] = {}
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = _handler_of(number)
        if callable(handler):  # not SIG_IGN, SIG_DFL or a handler set outside Python
            before[number] = handler
            signal.signal(number, lambda number, frame: came.update({number: frame}))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if forget:
        came.pop(signal.SIGINT, None)
    for number in sorted(came, reverse=True):  # SIGTERM first, so that it is recorded
        with suppress(*[KeyboardInterrupt] * forget):
            before[number](number, came[number])


@contextmanager
def remembered() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C has come during the block.

    A KeyboardInterrupt is lost if it is raised where no code can catch it, for example
    in JAX's callbacks of the garbage collector.
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
    """Treat SIGTERM, which schedulers send before they kill, like Ctrl-C in the block.

    Yields a function that returns whether SIGTERM has come. After the block, SIGTERM is
    raised again, which ends the process unless the process has its own handler.
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

    When any process gets SIGTERM, JAX picks a chunk that no process has begun, at which
    all processes stop. The first Ctrl-C is turned into SIGTERM. A second Ctrl-C
    interrupts its own process, immediately.
    """
    before = _handler_of(signal.SIGINT)

    def tell_all(number, frame):
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGTERM)

    def all_end():
        with suppress(RuntimeError):  # raised if jax_enable_preemption_service is off
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
    """Return whether a part of any array is on devices of other processes."""
    return any(
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        for leaf in jax.tree.leaves(tree)
    )


def _handler_of(number: int) -> Any:
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(number) if main else None
