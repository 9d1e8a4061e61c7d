"""The list of all studies, in groups, with their times and the data they need."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One study in the list."""

    module: str  # below `experiments`
    about: str  # what the study shows
    # Time of a whole run on two CPU cores; measured, or scaled from the part of the run
    # that a comment names; None: not measured.
    minutes: float | None = None
    download: str = ""  # data that are downloaded at the first run


GROUPS: dict[str, dict[str, Entry]] = {
    "The four kinds": {
        "compare": Entry(
            "compare.study", "the four kinds of backpropagation side by side", 2
        ),
        "chain_rule": Entry(
            "static.chain_rule",
            "every factor of the chain rule on one digit, compared with jax.grad",
            7 / 60,
        ),
        "alignment": Entry(
            "static.alignment",
            "feedback alignment on MNIST: angles to the gradient, and published errors",
            6,
            "MNIST",
        ),
        "yin_yang": Entry(
            "static.yin_yang",
            "exact and approximate gradients on a small task that needs deep credit, "
            "compared with published accuracies",
            12,  # from 6 of its 18 jobs
        ),
        "drift": Entry(
            "forgetting.drift",
            "the forgetting factor on a drifting linear model, and on weather",
            20 / 60,
            "weather of Seattle",
        ),
    },
    "Rprop": {
        "encoders": Entry(
            "resilient.encoders",
            "the encoder problems of the first Rprop paper, compared with its results",
            1,
        ),
        "proben1": Entry(
            "resilient.proben1",
            "Rprop on the Proben1 problems, compared with Prechelt's published tables",
            10,  # from 144 of its 240 jobs
            "Proben1",
        ),
        "rprop_vs": Entry(
            "resilient.rprop_vs",
            "Rprop, its variants, the Rprops of optax and torch, Adam and L-BFGS "
            "compared",
            47 / 60,
        ),
        "rprop_minibatch": Entry(
            "resilient.rprop_minibatch",
            "the failure of Rprop on mini-batches, and methods that repair it",
            28 / 60,
        ),
        "rprop_robustness": Entry(
            "resilient.rprop_robustness",
            "sensitivity of Rprop, Adam and SGD to noise, scales and redundant inputs",
            4,  # from 1296 of its 1485 trainings
        ),
    },
    "Through time": {
        "flow": Entry(
            "through_time.flow",
            "gradient flow through time in four cells, from two initialisations",
            4,
        ),
        "influence_balancing": Entry(
            "through_time.influence_balancing",
            "a task whose truncated gradients have the wrong sign, for several rules",
            25 / 60,
        ),
        "memory_time": Entry(
            "through_time.memory_time",
            "memory and time of one gradient through time, for every remat policy",
            3,
        ),
        "copy_adding": Entry(
            "through_time.copy_adding",
            "the copy and adding tasks: loss and gradient flow of each cell",
            6,  # from 7 of its 10 jobs
        ),
        "sequential_mnist": Entry(
            "through_time.sequential_mnist",
            "MNIST read pixel by pixel, compared with a published table",
            5,  # from the LSTM and most of the GRU
            "MNIST",
        ),
        "long": Entry(
            "through_time.long",
            "truncated BPTT over 100,000 characters in constant memory",
            1.4,
        ),
    },
    "Online": {
        "atlas": Entry(
            "online.atlas",
            "which gradient rule for what: many rules on several tasks and cells, "
            "with intervals and costs",
            27,
            "markers of breathing people and spoken digits",
        ),
        "online_learning": Entry(
            "online.online_learning",
            "online prediction of chaotic series, and each rule's cosine to exact RTRL",
        ),
        "add_task": Entry(
            "online.add_task",
            "online learning of two delayed inputs, compared with lowest possible "
            "losses",
            2,
        ),
        "copy_length": Entry(
            "online.copy_length",
            "the longest string that each rule learns to copy in a given number of "
            "steps",
            4.4,  # from 13 of its 18 jobs
        ),
        "streaming": Entry(
            "online.streaming",
            "online learning on sensor streams, scored before each update",
            2.7,
            "robot data and weather of New York",
        ),
        "agents": Entry(
            "online.agents",
            "agents that act and learn at every step, on tasks that need memory",
            2.6,
        ),
        "breathing": Entry(
            "online.breathing",
            "forecasts of breathing by online rules, with and without the use of later "
            "samples, compared with published errors",
            10,
            "markers of breathing people",
        ),
        "spiking": Entry(
            "online.spiking",
            "spiking networks by e-prop, compared with published losses and other "
            "rules",
            8,
        ),
    },
    "Equilibrium": {
        "attractor": Entry(
            "equilibrium.attractor",
            "an associative memory that settles, trained with six kinds of gradient",
            9,  # from 2 of its 6 jobs
            "MNIST",
        ),
        "equilibrium_digits": Entry(
            "equilibrium.equilibrium_digits",
            "an equilibrium network on digits, with and without bounded weights",
            5,
        ),
        "equilibrium_mnist": Entry(
            "equilibrium.equilibrium_mnist",
            "a convolutional equilibrium network on MNIST: exact gradient and JFB",
            2.2,
            "MNIST",
        ),
        "equilibrium_propagation": Entry(
            "equilibrium.equilibrium_propagation",
            "equilibrium propagation and the exact gradient on MNIST, same seeds",
            38 / 60,
            "MNIST",
        ),
    },
    "Applications": {
        "images": Entry(
            "applications.images.study",
            "handwritten digits read by four kinds of network, compared with LeCun's "
            "table",
            4,
            "MNIST",
        ),
        "robot": Entry(
            "applications.robot.study",
            "a robot that follows a wall: networks with and without memory",
            2,
            "robot data",
        ),
        "music": Entry(
            "applications.music.study",
            "prediction of the next notes in chorales and folk tunes; MIDI samples",
            9,
            "chorales and folk tunes",
        ),
        "identify": Entry(
            "applications.identify.study",
            "online identification of two tanks, before and after they change",
            25 / 60,
        ),
        "control": Entry(
            "applications.control.study",
            "policies learned through differentiable physics: pendulum, cart-pole, arm",
            14,
        ),
    },
    "Your own data": {
        "forecast": Entry(
            "applications.forecast.study",
            "forecasts and intervals for sunspots, weather, prices or a CSV file",
            5,
            "weather and prices; not for a file of your own",
        ),
        "categorise": Entry(
            "applications.categorise.study",
            "classification of short texts: SMS spam, and kinds of questions",
            9,
            "SMS messages and questions",
        ),
        "speech": Entry(
            "applications.speech.study",
            "recognition of spoken digits: known and unknown speakers, or a WAV file",
            4,
            "spoken digits",
        ),
        "language": Entry(
            "applications.language.study",
            "a character model of a text, compared with n-grams; generated samples",
            7,
            "Shakespeare; not for a text of your own",
        ),
        "translate": Entry(
            "applications.translate.study",
            "translation between French and English, also of your own sentences",
            4,
            "pairs of sentences",
        ),
    },
    "Scale": {
        "char_lm": Entry(
            "scale.char_lm",
            "a character model of Shakespeare on many devices and processes",
            2,
            "Shakespeare",
        ),
        "pod": Entry(
            "scale.pod",
            "memory, FLOPs and limits of scaling on 256 chips: calculated, not "
            "measured",
            6 / 60,
        ),
        "kill_resume": Entry(
            "scale.kill_resume",
            "training runs killed by kill -9 and resumed, compared with uninterrupted "
            "runs",
            6,  # from 5 of its 21 jobs, which take equal times
        ),
        "benchmarks": Entry(
            "benchmarks",
            "speed compared with similar libraries",
            34,  # from 8 of its 93 jobs
        ),
    },
}
STUDIES = {name: entry for group in GROUPS.values() for name, entry in group.items()}
