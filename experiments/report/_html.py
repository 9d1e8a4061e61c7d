"""Write report.html of a study from the blocks that the study has recorded."""

import base64
import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import escape, Markup

from experiments.report._blocks import Block, Heading, Picture, Table
from experiments.report._files import versions, write_atomically, writes
from experiments.report._page import slug
from experiments.report._tables import how_to_continue
from experiments.report._template import TEMPLATE

TYPES = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
SMALL = 640  # pixels of a picture that is shrunk to fit a phone
_LONG = 24  # cells with more characters are texts, which may be wrapped
_OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*)")  # the name of an option
_MINUS = re.compile(r"(?<![\w-])-(?=\.?\d)")  # a hyphen before a number


def write_page(
    folder: Path,
    blocks: Sequence[Block],
    *,
    study: str,
    config: Any,
    seconds: float,
    interrupted: bool = False,
    style: str = "",
) -> Path | None:
    """Write report.html in the folder of a run; return its path.

    The page has the study's question, the command, a table of contents, the blocks and
    the options. Pictures are part of the file, so that it can be sent to somebody.

    Args:
      folder: the folder of the run.
      blocks: what the study has shown, from :func:`~experiments.report.recording`.
      study: name of the study.
      config: options of the study; the docstring of their class begins with the
        question that the study answers.
      seconds: time of the run.
      interrupted: whether jobs are missing.
      style: further CSS.
    """
    if not writes():
        return None
    question, *about = (inspect.getdoc(type(config)) or study).split("\n\n")
    shown = _prepared([*blocks, *_movies(folder, blocks)])
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["options_unbroken"] = _options_unbroken
    text = page.from_string(TEMPLATE).render(
        study=study,
        question=" ".join(question.split()),
        about=[" ".join(paragraph.split()) for paragraph in about],
        command=command(study, config),
        interrupted=interrupted,
        continued=how_to_continue(study, folder),
        contents=_contents(shown),
        blocks=shown,
        seconds=round(seconds),
        files=", ".join(
            path.name
            for path in sorted(folder.glob("[!.]*"))
            if path.is_file() and path.name != "report.html"
        ),
        options=[(name, _value(value)) for name, value in _given(config)],
        versions=versions().items(),
        style=style,
    )
    path = folder / "report.html"
    write_atomically(path, text)
    return path


def _options_unbroken(text: str) -> Markup:
    """Return HTML of a text in which no line ends within the name of an option."""
    parts = _OPTION.split(text)
    option = Markup('<span class="option">{}</span>')
    return Markup("").join(
        option.format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def command(study: str, config: Any) -> str:
    """Return the command that runs a study with the given options.

    Options that have their default values, or the values of `--quick`, are left out,
    and so are options about the folder.

    Example:
      >>> @dataclasses.dataclass
      ... class Config:
      ...     QUICK = {"steps": 1}
      ...     steps: int = 3
      ...     only: tuple[str, ...] = ()
      ...     quick: bool = False
      >>> command("flow", Config(5, ("a", "b c"), True))
      "python -m experiments flow --steps 5 --only a 'b c' --quick"
    """
    words = ["python", "-m", "experiments", study]
    quick = type(config).QUICK if getattr(config, "quick", False) else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        usual = (_default(field), quick.get(field.name, _default(field)))
        if field.name in ("out", "resume", "overwrite") or value in usual:
            continue
        option = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif dataclasses.is_dataclass(value):
            words += shlex.split(command("", value))[3:]
        else:
            words += [f"--{option}", *_words(value)]
    return " ".join(shlex.quote(word) for word in words if word)


def _words(value: Any) -> list[str]:
    """Return the words of an option's value; pairs are written one after another."""
    if isinstance(value, tuple | list):
        return [word for each in value for word in _words(each)]
    return [str(value)]


def _default(field: dataclasses.Field) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _prepared(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return the blocks as the template wants them, with an anchor of its own each."""
    used, shown = {"contents", "run"}, []
    for block in blocks:
        fields = {
            field.name: getattr(block, field.name)
            for field in dataclasses.fields(block)
        }
        if isinstance(block, Table):
            fields |= _table(block)
        elif isinstance(block, Picture):
            anchor = block.files[0][0].stem if block.files else "picture"
            fields |= {
                "anchor": slug(anchor),
                "files": [_file(*f) for f in block.files],
            }
        if "anchor" in fields:
            name = anchor = fields["anchor"]
            number = 2
            while anchor in used:
                anchor, number = f"{name}-{number}", number + 1
            used.add(anchor)
            fields["anchor"] = anchor
        shown.append(fields | {"kind": type(block).__name__})
    return shown


def _table(table: Table) -> dict[str, Any]:
    texts = [
        any(len(row) > 1 and len(row[i]) > _LONG for row in table.rows)
        for i in range(len(table.header))
    ]
    rows = []
    for number, row in enumerate(table.rows):
        if len(row) == 1:
            rows.append({"group": row[0]})
            continue
        cells = [
            {"text": _MINUS.sub("\u2212", cell), "long": long}
            for cell, long in zip(row[1:], texts[1:], strict=True)
        ]
        rows.append({"name": row[0], "cells": cells, "marked": number in table.marked})
    return {
        "rows": rows,
        "columns": len(table.header),
        "heads": [*zip(table.header, texts, strict=True)],
        "note": _paragraphs(table.note),
        "anchor": slug(table.title or "table"),
    }


def _paragraphs(note: str) -> list[str]:
    r"""Divide a note into paragraphs, at line breaks after the end of a sentence.

    Example:
      >>> _paragraphs("One. Two is\nlong.\nThree.")
      ['One. Two is long.', 'Three.']
    """
    found: list[str] = []
    for line in filter(None, note.split("\n")):
        if found and found[-1][-1] not in ".:;":
            found[-1] += f" {line}"
        else:
            found.append(line)
    return found


def _movies(folder: Path, blocks: Sequence[Block]) -> list[Picture]:
    """Return the GIFs in the folder that the study has not shown by itself."""
    pictures = [block for block in blocks if isinstance(block, Picture)]
    shown = {path for block in pictures for path, _ in block.files}
    return [
        Picture([(path, f"Animation of {path.stem}.")], f"Animation: {path.stem}")
        for path in sorted(folder.glob("*.gif"))
        if path not in shown
    ]


def _file(path: Path, alt: str) -> dict[str, Any]:
    content = path.read_bytes()
    data = base64.b64encode(content).decode()
    # Bytes 16 to 19 of a PNG are its width. A wide picture is scrolled on a phone.
    small = path.suffix == ".png" and int.from_bytes(content[16:20]) <= SMALL
    source = f"data:{TYPES[path.suffix]};base64,{data}"
    return {"alt": alt, "data": source, "small": small}


def _contents(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of the table of contents.

    If the study has headings, these are the entries; otherwise, its tables and
    pictures are.
    """
    headed = any(block["kind"] == Heading.__name__ for block in blocks)
    entries: list[dict[str, Any]] = []
    for block in blocks:
        if headed and block["kind"] == "Heading":
            entry = {"text": block["text"], "anchor": block["anchor"], "parts": []}
            if block["level"] == 2 or not entries:
                entries.append(entry)
            else:
                entries[-1]["parts"].append(entry)
        elif not headed and block["kind"] in ("Table", "Picture"):
            text = block.get("title") or block["kind"]
            if block["kind"] == "Picture":
                text = f"Picture: {_first_words(block['caption'])}"
            entries.append({"text": text, "anchor": block["anchor"], "parts": []})
    return entries


def _first_words(caption: str) -> str:
    """Return the title of the first panel, or the first sentence, of a caption.

    Example:
      >>> _first_words("Digits: test error · digits: training error.")
      'Digits: test error'
      >>> _first_words("The network and its factors. A line is a weight.")
      'The network and its factors'
    """
    return caption.split(" · ")[0].split(". ")[0].removesuffix(".")


def _given(config: Any) -> list[tuple[str, Any]]:
    """Return the options of a run, without those about its folder."""
    left_out = ("resume", "overwrite")
    given = dataclasses.asdict(config).items()
    return [(name, value) for name, value in given if name not in left_out]


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
