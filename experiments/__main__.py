"""`python -m experiments <study> --options`; without a study it lists them."""

import dataclasses
import importlib
import sys
from collections.abc import Callable
from typing import Any

import tyro

from experiments.harness.errors import DataError
from experiments.harness.options import did_you_mean

STUDIES = {  # name: module, what it is about
    "compare": (
        "compare.study",
        "the four kinds of backpropagation side by side, real data",
    ),
    "chain_rule": (
        "static.chain_rule",
        "every factor of the chain rule on one digit, beside jax.grad",
    ),
    "alignment": (
        "static.alignment",
        "MNIST by feedback alignment, beside published errors, and its angles",
    ),
    "encoders": ("resilient.encoders", "Rprop's first problems, beside its paper"),
    "proben1": (
        "resilient.proben1",
        "Rprop on Prechelt's collection, beside his tables",
    ),
    "rprop_vs": ("resilient.rprop_vs", "Rprop against other Rprops, Adam and L-BFGS"),
    "rprop_minibatch": (
        "resilient.rprop_minibatch",
        "Rprop fails on mini-batches, and what mends it",
    ),
    "rprop_robustness": (
        "resilient.rprop_robustness",
        "is Rprop less sensitive to noise, scales and redundant inputs?",
    ),
    "drift": (
        "forgetting.drift",
        "the forgetting factor on targets that change, and on weather",
    ),
    "attractor": ("equilibrium.attractor", "a memory that settles, by six gradients"),
    "equilibrium_digits": (
        "equilibrium.equilibrium_digits",
        "a network that settles, safeguarded and not",
    ),
    "equilibrium_mnist": (
        "equilibrium.equilibrium_mnist",
        "a convolutional network that settles: exact gradient and JFB",
    ),
    "influence_balancing": (
        "through_time.influence_balancing",
        "where truncated errors point the wrong way, and what does not",
    ),
    "memory_time": (
        "through_time.memory_time",
        "memory against time of a gradient, by every remat policy",
    ),
    "flow": (
        "through_time.flow",
        "how far errors travel back in tanh, GRU, LSTM and LRU, from two starts",
    ),
    "copy_adding": (
        "through_time.copy_adding",
        "copy memory and adding: who remembers, and what flows back in time",
    ),
    "sequential_mnist": (
        "through_time.sequential_mnist",
        "MNIST pixel by pixel, beside the published table",
    ),
    "add_task": (
        "online.add_task",
        "two memories, learned at every step, beside their floors",
    ),
    "copy_length": (
        "online.copy_length",
        "how long a string each rule learns to copy, in equal steps",
    ),
    "long": (
        "through_time.long",
        "100,000 characters through truncated BPTT at constant memory",
    ),
    "online_learning": (
        "online.online_learning",
        "chaotic series: who follows exact RTRL, beside a published table",
    ),
    "streaming": (
        "online.streaming",
        "sensors as they come: learned at every step, scored before",
    ),
    "images": (
        "applications.images.study",
        "handwritten digits by four kinds of network, beside LeCun's table",
    ),
    "speech": (
        "applications.speech.study",
        "which digit was spoken, by people known and unknown, or in a WAV file",
    ),
    "char_lm": (
        "scale.char_lm",
        "characters of Shakespeare on many devices and processes",
    ),
    "pod": ("scale.pod", "what 256 chips would do: bytes, FLOPs, where it stops"),
    "kill_resume": (
        "scale.kill_resume",
        "a training killed by kill -9, and resumed to the bit",
    ),
    "robot": (
        "applications.robot.study",
        "a robot that follows a wall: networks with and without a memory",
    ),
    "music": (
        "applications.music.study",
        "chorales and folk tunes: what sounds next, and samples to listen to",
    ),
    "language": (
        "applications.language.study",
        "a text by its characters, beside n-grams; it writes on, too",
    ),
    "identify": (
        "applications.identify.study",
        "two tanks identified online, and again after they have changed",
    ),
    "forecast": (
        "applications.forecast.study",
        "sunspots, weather, prices or a CSV file: what comes next, and how surely",
    ),
    "categorise": (
        "applications.categorise.study",
        "texts in classes: is a message spam, what does a question ask for",
    ),
    "control": (
        "applications.control.study",
        "policies through differentiable physics: pendulum, cart and pole, an arm",
    ),
    "translate": (
        "applications.translate.study",
        "French to English with attention, teacher forcing and not; your sentence too",
    ),
    "benchmarks": ("benchmarks", "this library against its peers, in one run"),
}
MACHINE = ("--devices", "--model-devices", "--distributed", "--coordinator")
MACHINE += ("--processes", "--process-id", "--heartbeat", "--precision")
MACHINE += ("--matmul-precision",)
ON_MANY = ("char_lm",)  # studies that have a Machine among their options


def main(arguments: list[str]) -> int:
    """Run the study that is named first, or after its options; return the exit code."""
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
                f"the precision it was written for. With {refused} there are: "
                f"{', '.join(ON_MANY)}.",
                file=sys.stderr,
            )
            return 2
    commands = {each: _described(about) for each, (_, about) in STUDIES.items()}
    config = tyro.extras.subcommand_cli_from_dict(
        commands if study is None else {**commands, name: study.Config},
        prog="python -m experiments",
        args=[name, *options],
        config=(tyro.conf.OmitArgPrefixes,),  # --devices, not --machine.devices
    )
    # That leaves with 0 after help, and with 2 if an option is wrong.
    assert study is not None
    try:
        return 130 if _run(name, study, config).interrupted else 0
    except DataError as error:
        print(error, file=sys.stderr)
        return 1


def _described(about: str) -> Callable[[], None]:
    """Return a command for the list of studies; its own module is not imported."""
    command = lambda: None
    command.__doc__ = about[0].upper() + about[1:] + ("" if about[-1] == "?" else ".")
    return command


def _run(name: str, study: Any, config: Any) -> Any:
    """Run a study, on the devices that were asked for where it can use several."""
    if name not in ON_MANY:
        return study.main(config)
    from experiments.harness import devices

    devices.start(config.machine)
    return devices.run(study.main, config)


def _study_first(arguments: list[str]) -> list[str]:
    """Return the arguments with the study before its options."""
    if not arguments[0].startswith("-"):
        return arguments
    name = next((word for word in arguments if word in STUDIES), arguments[0])
    rest = list(arguments)
    rest.remove(name)
    return [name, *rest]


def _refused(config: type, options: list[str]) -> str:
    """Return the first option that is of many devices, and not of this study."""
    fields = {field.name for field in dataclasses.fields(config)}
    if "machine" in fields:
        return ""
    given = [word.split("=")[0].replace("_", "-") for word in options]
    own = {f"--{field.replace('_', '-')}" for field in fields}
    return next((word for word in given if word in MACHINE and word not in own), "")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
