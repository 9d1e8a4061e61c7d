"""Blocks of a study's page, and the list of blocks that is being recorded."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading, which the table of contents lists."""

    text: str
    anchor: str
    level: int = 2  # 2: a section of the page, 3: a part of a section


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph; a conclusion is computed from the results, and stands out."""

    text: str
    conclusion: bool = False
    exact: bool = False  # whether spaces and line breaks are kept


@dataclasses.dataclass(frozen=True)
class Fragment:
    """A piece of HTML, such as an explanation with a diagram."""

    html: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; a row with one cell is a heading of the rows below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    marked: Collection[int]  # indices of rows that stand out


@dataclasses.dataclass(frozen=True)
class Picture:
    """One or more pictures with one caption; each has an alternative text."""

    files: Sequence[tuple[Path, str]]  # (path, alternative text)
    caption: str


Block: TypeAlias = Heading | Paragraph | Fragment | Table | Picture
_blocks: ContextVar[list[Block] | None] = ContextVar("_blocks", default=None)


@contextmanager
def recording() -> Iterator[list[Block]]:
    """Record everything that a study shows within a `with` block; yield the blocks."""
    blocks: list[Block] = []
    token = _blocks.set(blocks)
    try:
        yield blocks
    finally:
        _blocks.reset(token)


def record(block: Block) -> None:
    """Add a block to the page that is being recorded, if there is one."""
    blocks = _blocks.get()
    if blocks is not None:
        blocks.append(block)
