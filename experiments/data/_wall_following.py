"""Records of a wall-following robot with 24 sensors at 9 Hz, downloaded once.

A. L. Freire, M. Veloso, G. A. Barreto, "Wall-following robot navigation data", UCI
Machine Learning Repository 2010, doi:10.24432/C57C8W, CC BY 4.0. The UCI repository has
the data as a zip archive, https://archive.ics.uci.edu/dataset/194. The downloaded file
is a copy from a GitHub repository, at a fixed commit. This copy has an additional first
line with column names. The sensors measure distances by ultrasound.
"""

from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

FILE = "wall_following/sensor_readings_24.data"
SHA256 = "1108cbbcac9c119519a3c493358d3084bc619b5aaa688212aa75a777aa7bd5fd"
URL = (
    "https://raw.githubusercontent.com/Transcendence-ML-Python/"
    "robot-sensor-data-classification-ml/26b6938695cbc5bcd188c0d0cb781ef2ab9145e8/"
    "sensor_readings_24.data"
)
URL_SHA256 = "d16340156958f2317c63a93418ab9aa7d60ad0d07869c2e5854d6f14a0755317"
ACTIONS = (
    "Move-Forward",
    "Slight-Right-Turn",
    "Sharp-Right-Turn",
    "Slight-Left-Turn",
)


class WallFollowing(NamedTuple):
    """Records in order of time; by convention, test data begin at index 4092."""

    readings: np.ndarray  # [5456, 24] float32, distances in m; 5: out of range
    actions: np.ndarray  # [5456] action of the robot, an index into ACTIONS


def wall_following() -> WallFollowing:
    """Load all records of the robot."""
    path = find(FILE, SHA256)
    lines = (
        path.read_text(encoding="ascii").splitlines()
        if path
        else fetch(URL, URL_SHA256, FILE).read_text(encoding="ascii").splitlines()[1:]
    )
    *readings, actions = zip(*(line.split(",") for line in lines), strict=True)
    return WallFollowing(
        np.array(readings, np.float32).T,
        np.array([ACTIONS.index(action) for action in actions], np.int32),
    )
