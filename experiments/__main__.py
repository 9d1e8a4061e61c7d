"""Command line of the studies: `python -m experiments <study> --options`."""

import importlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from experiments._machine import ON_MANY, refusal, TRAIN
from experiments.harness.listing import listing
from experiments.studies import STUDIES

INTERRUPTED = 130  # exit code of shells after Ctrl-C: 128 + SIGINT


def main(arguments: list[str]) -> int:
    """Run the study that the arguments name; return the exit code of the process.

    Options of the study may come before its name. `ask` asks a trained model.
    """
    if arguments[:1] == ["ask"]:
        return importlib.import_module("experiments.asking").main(arguments[1:])
    with _leaving_on_ctrl_c():
        chosen = _chosen(arguments)
    if isinstance(chosen, int):
        return chosen
    from experiments.harness.errors import DataError

    try:
        return INTERRUPTED if _run(*chosen).interrupted else 0
    except DataError as error:
        print(error, file=sys.stderr)
        return 1


def _chosen(arguments: list[str]) -> int | tuple[str, Any, Any]:
    """Return the study's name, module and options; or an exit code if no study runs."""
    from experiments.harness.options import did_you_mean

    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing(min(shutil.get_terminal_size().columns, 100)))
        return 0
    name, *options = _study_first(arguments)
    if name not in STUDIES:
        known, hint = ", ".join(STUDIES), did_you_mean(name, STUDIES)
        print(f"unknown study {name!r}; there are: {known}.{hint}", file=sys.stderr)
        return 2
    study = importlib.import_module(f"experiments.{STUDIES[name].module}")
    refused = refusal(name, study.Config, options)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    from experiments.harness.help import parse

    return name, study, parse(study.Config, f"python -m experiments {name}", options)


@contextmanager
def _leaving_on_ctrl_c() -> Iterator[None]:
    """Exit immediately on Ctrl-C within the with-block, which imports modules.

    An imported module could catch a KeyboardInterrupt, or turn it into another error.
    No results are lost, because the study has not begun.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: _leave())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave() -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _run(name: str, study: Any, config: Any) -> Any:
    """Run a study; if it supports several devices, use the devices in its options."""
    if name not in ON_MANY + TRAIN:
        return study.main(config)
    from experiments.harness import devices

    if name in TRAIN:
        devices.start(config)
        return study.main(config)
    devices.start(config.machine)
    return devices.run(study.main, config)


def _study_first(arguments: list[str]) -> list[str]:
    """Return the command-line arguments, with the study's name before its options."""
    if not arguments[0].startswith("-"):
        return arguments
    name = next((word for word in arguments if word in STUDIES), arguments[0])
    rest = list(arguments)
    rest.remove(name)
    return [name, *rest]


def _start() -> int:
    """Run the study that the command line names; return the exit code."""
    with _leaving_on_ctrl_c():
        from experiments.harness.printing import show_every_text

        show_every_text()
    return main(sys.argv[1:])


if __name__ == "__main__":
    try:
        code = _start()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
