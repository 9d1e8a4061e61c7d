"""Command line of one study: its options are parsed, and their help is wrapped once."""

import ast
import dataclasses
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro


def parse(config: type, program: str, arguments: Sequence[str]) -> Any:
    """Return the options of a study from command-line arguments.

    After --help, the process exits with code 0; after a wrong option, with code 2.

    Args:
      config: the dataclass of the study's options; the docstrings of its fields are the
        help of the options.
      program: beginning of the command, for the help.
      arguments: the arguments after the name of the study.
    """
    given = tyro.cli(
        _with_help(config),
        prog=program,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes,),  # name --devices, not --machine.devices
    )
    try:
        return _as(config, given)
    except ValueError as error:  # from the checks of the study's options
        print(f"{error} For all options: {program} --help", file=sys.stderr)
        raise SystemExit(2) from None


def help_of(config: type) -> dict[str, str]:
    """Return the docstring of each option as one line, {option: docstring}.

    tyro would keep the line breaks of the docstrings, and wrap the lines again.
    """
    found: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _with_help(config: type) -> type:
    """Return a class with the same options, with help as part of each type.

    It does not inherit from `config`, because older versions of tyro show the class
    attributes of the study, such as `CHECKS`, as options.
    """
    hints, texts = typing.get_type_hints(config, include_extras=True), help_of(config)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        hint, default = hints[field.name], dataclasses.field(default=field.default)
        if dataclasses.is_dataclass(hint):
            hint = _with_help(typing.cast(type, hint))
            default = dataclasses.field(default_factory=hint)
        else:
            # Do not show "(default: )": the help text says what an empty tuple means.
            shown = "" if field.default == () else None
            told = tyro.conf.arg(
                help=texts.get(field.name, ""), help_behavior_hint=shown
            )
            hint = Annotated[hint, told]
            if field.default_factory is not dataclasses.MISSING:
                default = dataclasses.field(default_factory=field.default_factory)
        fields.append((field.name, hint, default))
    shown = dataclasses.make_dataclass(config.__name__, fields, frozen=True)
    shown.__doc__ = _wrapped(inspect.getdoc(config) or "")
    return shown


def _as(config: type, given: Any) -> Any:
    """Return the options as an instance of their own class."""
    hints = typing.get_type_hints(config)
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(given, field.name)
        nested = dataclasses.is_dataclass(hints[field.name])
        values[field.name] = _as(hints[field.name], value) if nested else value
    return config(**values)


def _wrapped(text: str) -> str:
    """Wrap paragraphs to the width of the terminal.

    Lines begin with a space, because tyro joins lines that begin with a letter.
    """
    width = min(shutil.get_terminal_size().columns, 100) - 1
    paragraphs = [" ".join(each.split()) for each in text.split("\n\n")]
    return "\n\n".join(
        textwrap.fill(each, width, subsequent_indent=" ") for each in paragraphs
    )
