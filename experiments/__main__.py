"""Command line of the studies: `python -m experiments <study> --options`.

Without the name of a study, the command lists all studies.
"""

import dataclasses
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INTERRUPTED = 130  # exit code of shells after Ctrl-C: 128 + SIGINT
STUDIES = {  # {name: (module, description)}
    "compare": (
        "compare.study",
        "the four kinds of backpropagation side by side on real data",
    ),
    "chain_rule": (
        "static.chain_rule",
        "every factor of the chain rule on one digit, compared with jax.grad",
    ),
    "alignment": (
        "static.alignment",
        "feedback alignment on MNIST: angles to the gradient, and published errors",
    ),
    "encoders": (
        "resilient.encoders",
        "the encoder problems of the first Rprop paper, compared with its results",
    ),
    "proben1": (
        "resilient.proben1",
        "Rprop on the Proben1 problems, compared with Prechelt's published tables",
    ),
    "rprop_vs": (
        "resilient.rprop_vs",
        "Rprop, its variants, the Rprops of optax and torch, Adam and L-BFGS compared",
    ),
    "rprop_minibatch": (
        "resilient.rprop_minibatch",
        "the failure of Rprop on mini-batches, and methods that repair it",
    ),
    "rprop_robustness": (
        "resilient.rprop_robustness",
        "sensitivity of Rprop, Adam and SGD to noise, scales and redundant inputs",
    ),
    "drift": (
        "forgetting.drift",
        "the forgetting factor on a drifting linear model, and on weather",
    ),
    "attractor": (
        "equilibrium.attractor",
        "an associative memory that settles, trained with six kinds of gradient",
    ),
    "equilibrium_digits": (
        "equilibrium.equilibrium_digits",
        "an equilibrium network on digits, with and without bounded weights",
    ),
    "equilibrium_mnist": (
        "equilibrium.equilibrium_mnist",
        "a convolutional equilibrium network on MNIST: exact gradient and JFB",
    ),
    "influence_balancing": (
        "through_time.influence_balancing",
        "a task whose truncated gradients have the wrong sign, for several rules",
    ),
    "memory_time": (
        "through_time.memory_time",
        "memory and time of one gradient through time, for every remat policy",
    ),
    "flow": (
        "through_time.flow",
        "gradient flow through time in four cells, from two initialisations",
    ),
    "copy_adding": (
        "through_time.copy_adding",
        "the copy and adding tasks: loss and gradient flow of each cell",
    ),
    "sequential_mnist": (
        "through_time.sequential_mnist",
        "MNIST read pixel by pixel, compared with a published table",
    ),
    "add_task": (
        "online.add_task",
        "online learning of two delayed inputs, compared with lowest possible losses",
    ),
    "copy_length": (
        "online.copy_length",
        "the longest string that each rule learns to copy in a given number of steps",
    ),
    "long": (
        "through_time.long",
        "truncated BPTT over 100,000 characters in constant memory",
    ),
    "online_learning": (
        "online.online_learning",
        "online prediction of chaotic series, and each rule's cosine to exact RTRL",
    ),
    "streaming": (
        "online.streaming",
        "online learning on sensor streams, scored before each update",
    ),
    "images": (
        "applications.images.study",
        "handwritten digits read by four kinds of network, compared with LeCun's table",
    ),
    "speech": (
        "applications.speech.study",
        "recognition of spoken digits: known and unknown speakers, or a WAV file",
    ),
    "char_lm": (
        "scale.char_lm",
        "a character model of Shakespeare on many devices and processes",
    ),
    "pod": (
        "scale.pod",
        "memory, FLOPs and limits of scaling on 256 chips: calculated, not measured",
    ),
    "kill_resume": (
        "scale.kill_resume",
        "training runs killed by kill -9 and resumed, compared with uninterrupted runs",
    ),
    "robot": (
        "applications.robot.study",
        "a robot that follows a wall: networks with and without memory",
    ),
    "music": (
        "applications.music.study",
        "prediction of the next notes in chorales and folk tunes; MIDI samples",
    ),
    "language": (
        "applications.language.study",
        "a character model of a text, compared with n-grams; generated samples",
    ),
    "identify": (
        "applications.identify.study",
        "online identification of two tanks, before and after they change",
    ),
    "forecast": (
        "applications.forecast.study",
        "forecasts and intervals for sunspots, weather, prices or a CSV file",
    ),
    "categorise": (
        "applications.categorise.study",
        "classification of short texts: SMS spam, and kinds of questions",
    ),
    "control": (
        "applications.control.study",
        "policies learned through differentiable physics: pendulum, cart-pole, arm",
    ),
    "translate": (
        "applications.translate.study",
        "translation between French and English, also of your own sentences",
    ),
    "benchmarks": ("benchmarks", "speed compared with similar libraries"),
}
MACHINE = ("--devices", "--model-devices", "--distributed", "--coordinator")
MACHINE += ("--processes", "--process-id", "--heartbeat", "--precision")
MACHINE += ("--matmul-precision",)
ON_MANY = ("char_lm",)  # studies that can use several devices or processes


def main(arguments: list[str]) -> int:
    """Run the study that the arguments name; return the exit code of the process.

    Options of the study may come before its name.
    """
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
    import tyro

    from experiments.harness.options import did_you_mean

    name, *options = _study_first(arguments) if arguments else ["--help"]
    study = None
    if name not in STUDIES and not name.startswith("-"):
        known, hint = ", ".join(STUDIES), did_you_mean(name, STUDIES)
        print(f"unknown study {name!r}; there are: {known}.{hint}", file=sys.stderr)
        return 2
    if name in STUDIES:
        study = importlib.import_module(f"experiments.{STUDIES[name][0]}")
        refused = _refused(study.Config, options)
        if refused:
            print(
                f"{name} has no {refused}: it runs on one device, in one process, with "
                f"the precision it was written for. Studies with {refused}: "
                f"{', '.join(ON_MANY)}.",
                file=sys.stderr,
            )
            return 2
    commands = {each: _described(about) for each, (_, about) in STUDIES.items()}
    config = tyro.extras.subcommand_cli_from_dict(
        commands if study is None else {**commands, name: study.Config},
        prog="python -m experiments",
        args=[name, *options],
        config=(tyro.conf.OmitArgPrefixes,),  # name --devices, not --machine.devices
    )
    # After --help, tyro exits with code 0; after a wrong option, with code 2.
    assert study is not None
    return name, study, config


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


def _described(about: str) -> Callable[[], None]:
    """Return an empty function whose docstring is the description of one study.

    tyro lists the studies in --help from these functions, without importing a study.
    """
    command = lambda: None
    command.__doc__ = about[0].upper() + about[1:] + ("" if about[-1] == "?" else ".")
    return command


def _run(name: str, study: Any, config: Any) -> Any:
    """Run a study; if it supports several devices, use the devices in its options."""
    if name not in ON_MANY:
        return study.main(config)
    from experiments.harness import devices

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


def _refused(config: type, options: list[str]) -> str:
    """Return the first option about devices (:data:`MACHINE`) that the study rejects.

    Return "" if the study rejects no option about devices.
    """
    fields = {field.name for field in dataclasses.fields(config)}
    if "machine" in fields:
        return ""
    given = [word.split("=")[0].replace("_", "-") for word in options]
    own = {f"--{field.replace('_', '-')}" for field in fields}
    return next((word for word in given if word in MACHINE and word not in own), "")


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
