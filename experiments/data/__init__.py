"""Real data that comes with the dependencies, or with this project."""

from experiments.data._digits import Digits as Digits, digits as digits
from experiments.data._python_reference import (
    python_reference as python_reference,
    Text as Text,
)
from experiments.data._sunspots import Sunspots as Sunspots, sunspots as sunspots
