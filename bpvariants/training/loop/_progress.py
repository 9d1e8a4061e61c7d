"""Progress of a training, written to stderr: one changing line, or lines of a log."""

import sys
import time

import jax
import numpy as np

from bpvariants._tables import short

SECONDS = {True: 0.1, False: 10.0}  # least time between two texts, on a terminal or not


class Progress:
    """Writer of the number of steps, the loss, the speed and the time left.

    On a terminal, one line is overwritten. In a file or a notebook, a new line is
    written at most every 10 seconds, and after the last step. Only the first of several
    processes writes.
    """

    def __init__(self, steps: int):
        self._steps, self._file = steps, sys.stderr
        self._on_terminal = bool(getattr(self._file, "isatty", lambda: False)())
        self._writes = jax.process_index() == 0
        self._width, self._last, self._text = 0, -np.inf, ""
        self._began, self._first = time.perf_counter(), 0

    def begin(self, step: int) -> None:
        """Note the step at which the training begins."""
        self._began, self._first = time.perf_counter(), step
        if self._on_terminal:
            self._write(f"{self._count(step)}, compiling")

    def tell(self, step: int, values: np.ndarray, compile_seconds: float) -> None:
        """Write the progress after a chunk; `values` [..., steps] are the losses."""
        now = time.perf_counter()
        seconds = max(now - self._began - compile_seconds, 1e-9)
        rate = (step - self._first) / seconds
        left = clock((self._steps - step) / rate) if rate else "?"
        loss = "loss" if values.ndim == 1 else "mean loss"
        now_at = short(np.mean(values[..., -1])) if values.shape[-1] else "?"
        self._text = (
            f"{self._count(step)}, {loss} {now_at}, {short(rate)} steps/s, {left} left"
        )
        if now - self._last >= SECONDS[self._on_terminal]:
            self._last = now
            self._write(self._text)
            self._text = ""

    def end(self) -> None:
        """Write the last progress, if it is not written yet, and end the line."""
        if self._text:
            self._write(self._text)
        if self._on_terminal and self._writes and self._width:
            self._file.write("\n")

    def _count(self, step: int) -> str:
        return f"fit: {step} of {self._steps} steps"

    def _write(self, text: str) -> None:
        if not self._writes:
            return
        if self._on_terminal:
            padded, self._width = text.ljust(self._width), len(text)
            self._file.write(f"\r{padded}")
        else:
            self._file.write(f"{text}\n")
        self._file.flush()


def clock(seconds: float) -> str:
    """Return a time as text, such as "12 s", "3 min 20 s" or "2 h 5 min"."""
    if not np.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
