"""Names of options for devices, and of the studies that have them."""

import dataclasses
import itertools

MACHINE = ("--devices", "--model-devices", "--distributed", "--coordinator")
MACHINE += ("--processes", "--process-id", "--heartbeat", "--dtype")
MACHINE += ("--precision",)
ON_MANY = ("char_lm",)  # studies with all of these options
OLD = (
    "The precision of matrix products is --precision in all studies; the type of the "
    "numbers of char_lm's network is --dtype."
)
# Studies that train by `training.fit` or `training.sweep` have these two options.
OF_TRAINING = ("--devices", "--precision")
TRAIN = ("compare", "alignment", "rprop_robustness", "equilibrium_mnist", "flow")
TRAIN += ("copy_adding", "sequential_mnist", "images", "speech", "robot", "music")
TRAIN += ("language", "forecast", "categorise", "control", "translate")


def refusal(name: str, config: type, options: list[str]) -> str:
    """Return an error message if a study rejects an option for devices, else "".

    Args:
      name: name of the study.
      config: class of the study's options.
      options: words of the command line.
    """
    fields = {field.name for field in dataclasses.fields(config)}
    given = [word.split("=")[0].replace("_", "-") for word in options]
    if "--matmul-precision" in given:
        return OLD
    if "machine" in fields:
        words = [part for word in options for part in word.split("=")]
        old = ("--precision", "float64") in itertools.pairwise(words)
        return f"{name} has no --precision float64. {OLD}" if old else ""
    own = {f"--{field.replace('_', '-')}" for field in fields}
    refused = [word for word in given if word in MACHINE and word not in own]
    if not refused:
        return ""
    word = refused[0]
    one = "on one device, in one process, with the precision it was written for"
    where = "in one process" if name in TRAIN else one
    with_it = ON_MANY + TRAIN * (word in OF_TRAINING)
    return (
        f"{name} has no {word}: it runs {where}. Studies with {word}: "
        f"{', '.join(with_it)}."
    )
