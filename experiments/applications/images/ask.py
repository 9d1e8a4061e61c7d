"""A trained model of `images` that recognises the digit in a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from rich.markup import escape
from scipy.ndimage import label

from bpvariants import training
from experiments import report
from experiments.applications.images.networks import make_network, Network, SIDE
from experiments.applications.images.picture import as_digit
from experiments.harness import models, novelty
from experiments.harness.errors import DataError
from experiments.harness.jobs import Row, Way

READS = {"png": Path}
PREFERRED = "conv"  # the network that answers, if it is trained; else the first one
LEARNED = 4000  # number of training images that a new image is compared with
NAMES = ("rule", "static_rule", "lookback", "units")  # options that shape a network


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that recognises the digit in a picture.

    The argument is the path of a picture, or an array [28, 28] in 0..1 that is 0 in
    the background, like the images of MNIST. A picture may have any size, and ink that
    is darker or lighter than the paper.
    """
    settings = dict(saved.settings)
    network = make_network(settings.pop("network"), **settings)
    run = _run(network)

    def predict(x: Any) -> models.Answer:
        path = isinstance(x, str | Path)
        image = read_picture(Path(x)) if path else np.asarray(x, np.float32)
        if image.shape != (SIDE, SIDE):
            raise ValueError(f"the image must be [28, 28], got {list(image.shape)}.")
        likely, hidden = run(saved.params["networks"], image[None])
        mean = np.asarray(likely)[:, 0].mean(axis=0)
        digit = int(mean.argmax())
        views = describe(np.asarray(hidden), image[None])
        return models.answer(saved, digit, float(mean[digit]), views)

    return predict


def read_picture(path: Path) -> np.ndarray:
    """Read a picture of one digit, and convert it to the form of MNIST's images.

    Raises:
      DataError: if the file cannot be read as a picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        grey = Image.alpha_composite(paper, picture).convert("L")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path} cannot be read as a picture: {error}. Save it as PNG."
        ) from error
    return as_digit(np.asarray(grey, np.float32) / 255)


def describe(hidden: np.ndarray, images: np.ndarray) -> novelty.Views:
    """Return the vectors by which images are compared with training images.

    The vectors are the values before the last layer of the first network, pixels, and
    statistics of the strokes.

    Args:
      hidden: [networks, N, n].
      images: [N, 28, 28].
    """
    pixels = images.reshape(len(images), -1)
    strokes = np.stack([_strokes(image) for image in images])
    return {"state": hidden[0], "pixels": pixels, "strokes": strokes}


def _strokes(image: np.ndarray) -> list[float]:
    """Return statistics of an image's strokes.

    They are the mean ink, the share of ink that is grey, the length of edges per ink,
    the height and the width of the digit, and the numbers of strokes and of holes.
    """
    ink = image > 0.3
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    sides = [float(np.ptp(each)) if each.size else 0.0 for each in (rows, columns)]
    grey = np.sum((image > 0.15) & (image < 0.7)) / max(1, np.sum(image > 0.15))
    edges = sum(np.abs(np.diff(image, axis=axis)).sum() for axis in (0, 1))
    count = lambda *pixels: cast(tuple, label(*pixels))[1]
    pieces, background = count(ink, np.ones((3, 3))), count(~ink)
    ends = [np.log(1 + pieces), np.log(1 + background)]
    return [image.mean(), grey, edges / max(1.0, image.sum()), *sides, *ends]


def _run(network: Network) -> Callable:
    """Return a function (params, images) -> (probabilities, values before the end)."""

    def run(params, images):
        likely = jax.nn.softmax(network.logits(params, images))
        return likely, network.hidden(params, images)

    return jax.jit(jax.vmap(run, in_axes=(0, None)))


def save(
    config: Any,
    folder: Path,
    rows: list[Row],
    train: np.ndarray,
    held_out: np.ndarray,
) -> None:
    """Save the convolutional networks of a run, or else the first trained networks.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
      train: training images.
      held_out: images that were not trained on.
    """
    names = [row["job"] for row in rows]
    name = PREFERRED if PREFERRED in names else names[0]
    options = {option: getattr(config, option) for option in NAMES}
    network = make_network(name, **options)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    like = jax.jit(jax.vmap(network.init))(keys)
    _, params = training.read_checkpoint(Way(name, folder).checkpoints, like)
    run = _run(network)

    def views(images):
        parts = [images[i : i + 1000] for i in range(0, len(images), 1000)]
        hidden = [np.asarray(run(params, part)[1]) for part in parts]
        return describe(np.concatenate(hidden, axis=1), images)

    calibrated = novelty.calibrate(views(train[:LEARNED]), views(held_out[:4000]))
    models.save_model(
        folder,
        "images",
        {"networks": params, "novelty": calibrated},
        {"network": name, **options},
    )


def show(config: Any, folder: Path, image: np.ndarray) -> None:
    """Print the digit that the networks of a run recognise in the user's picture."""
    found = models.load(folder).predict(image)
    digit = f"[bold]{found.value}[/bold] ({100 * (found.probability or 0):.0f} %)"
    report.say(f"{escape(str(config.predict))}: {digit}{found.warning}")
