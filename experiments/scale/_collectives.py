"""Collective operations of a compiled program, parsed from the program's text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute",)
BITS = {"pred": 8, "bf16": 16}  # in bits; names of all other types contain the size
OPERATION = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
ARRAY = re.compile(r"\b(pred|bf16|[fsuc]\d+)\[([\d,]*)\]")
CALL = re.compile(r"(?:body|condition|to_apply|calls)=%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count[^}]*?"n":"(\d+)"')
BEGIN = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")


class Collective(NamedTuple):
    """A collective operation, which sends data between devices."""

    kind: str
    num_bytes: int  # size in bytes of the operation's result on one device
    times: int  # number of times that the operation runs in a call of the program


def collectives(program: str) -> list[Collective]:
    """Return the collective operations in the text of a compiled program.

    The text `program` is the result of `jit(f).lower(…).compile().as_text()`.

    Raises:
      ValueError: if a collective operation is in a loop, and the text does not have the
        number of iterations of the loop.
    """
    found: list[tuple[str, str, int]] = []
    calls: dict[str, list[tuple[str, int | None]]] = {}
    entry = within = ""
    for line in program.splitlines():
        if begin := BEGIN.match(line):
            within = begin[2]
            entry = within if begin[1] else entry
        if operation := OPERATION.search(line):
            found.append((within, operation[2], _num_bytes(operation[1])))
        trips = TRIPS.search(line)
        runs = 1
        if " while(" in line:
            runs = int(trips[1]) if trips else None
        for name in CALL.findall(line):
            calls.setdefault(name, []).append((within, runs))

    def times(name: str) -> int:
        if name == entry:
            return 1
        total = 0
        for caller, runs in calls.get(name, []):
            if runs is None:
                raise ValueError(f"the number of steps of loop {name} is unknown.")
            total += runs * times(caller)
        return total

    return [Collective(kind, size, times(name)) for name, kind, size in found]


def _num_bytes(shapes: str) -> int:
    total = 0
    for kind, lengths in ARRAY.findall(shapes):
        bits = BITS.get(kind) or int(kind[1:])
        total += bits // 8 * math.prod(int(n) for n in lengths.split(",") if n)
    return total
