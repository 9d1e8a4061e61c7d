"""`python -m experiments <study> --options`; without a study it lists them."""

import importlib
import sys

import tyro

from experiments.options import did_you_mean

STUDIES = {  # name: module, what it is about
    "compare": ("compare", "the four kinds of backpropagation side by side, real data"),
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
    "drift": (
        "recurrent.drift",
        "the forgetting factor on targets that change, and on weather",
    ),
    "attractor": ("recurrent.attractor", "a memory that settles, by six gradients"),
    "equilibrium_digits": (
        "recurrent.equilibrium_digits",
        "a network that settles, safeguarded and not",
    ),
    "equilibrium_mnist": (
        "recurrent.equilibrium_mnist",
        "a convolutional network that settles: exact gradient and JFB",
    ),
    "influence_balancing": (
        "through_time.influence_balancing",
        "where truncated errors point the wrong way, and what does not",
    ),
    "memory_time": (
        "through_time.memory_time",
        "memory against time of a gradient, by every checkpoint policy",
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
    "kill_resume": (
        "scale.kill_resume",
        "a training killed by kill -9, and resumed to the bit",
    ),
    "music": (
        "applications.music",
        "chorales and folk tunes: what sounds next, and samples to listen to",
    ),
    "language": (
        "applications.language",
        "a text by its characters, beside n-grams; it writes on, too",
    ),
    "benchmarks": ("benchmarks", "this library against its peers, in one run"),
}


def main(arguments: list[str]) -> int:
    """Run the study that is named first; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, STUDIES))
        print("usage: python -m experiments <study> [--help] [options]\n\nstudies:")
        for name, (_, about) in STUDIES.items():
            print(f"  {name:<{width}}  {about}")
        return 0
    name, *options = arguments
    if name not in STUDIES:
        known, hint = ", ".join(STUDIES), did_you_mean(name, STUDIES)
        print(f"unknown study {name!r}; there are: {known}.{hint}", file=sys.stderr)
        return 2
    study = importlib.import_module(f"experiments.{STUDIES[name][0]}")
    prog = f"python -m experiments {name}"
    config = tyro.cli(study.Config, prog=prog, args=options)  # exits with 2 if wrong
    return 130 if study.main(config).interrupted else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted")
