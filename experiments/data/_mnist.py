"""MNIST: handwritten digits (Y. LeCun, C. Cortes, C. Burges), downloaded once."""

import gzip
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
SUMS = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


class MNIST(NamedTuple):
    """Images [N, 28, 28] in 0..1 and labels [N]: 60,000 in train, 10,000 in test."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def mnist() -> MNIST:
    """Load all images and labels of MNIST, in the official split."""
    return MNIST(
        (_images("train-images-idx3-ubyte.gz"), _labels("train-labels-idx1-ubyte.gz")),
        (_images("t10k-images-idx3-ubyte.gz"), _labels("t10k-labels-idx1-ubyte.gz")),
    )


def _images(name: str) -> np.ndarray:
    values = np.frombuffer(_bytes(name), np.uint8, offset=16)
    return (values.reshape(-1, 28, 28) / 255).astype(np.float32)


def _labels(name: str) -> np.ndarray:
    return np.frombuffer(_bytes(name), np.uint8, offset=8).astype(np.int32)


def _bytes(name: str) -> bytes:
    path = find(f"mnist/{name}", SUMS[name])
    path = path or fetch(URL + name, SUMS[name], f"mnist/{name}")
    return gzip.decompress(path.read_bytes())
