"""Real data: from the dependencies, from this project, or fetched and checked."""

from experiments.data._digits import Digits as Digits, digits as digits
from experiments.data._mnist import MNIST as MNIST, mnist as mnist
from experiments.data._nyc_weather import (
    nyc_weather as nyc_weather,
    NYCWeather as NYCWeather,
)
from experiments.data._proben1 import (
    parse_proben1 as parse_proben1,
    Part as Part,
    Proben1 as Proben1,
    proben1 as proben1,
)
from experiments.data._python_reference import (
    python_reference as python_reference,
    Text as Text,
)
from experiments.data._seattle_weather import (
    seattle_weather as seattle_weather,
    SeattleWeather as SeattleWeather,
)
from experiments.data._sunspots import Sunspots as Sunspots, sunspots as sunspots
from experiments.data._tinyshakespeare import tinyshakespeare as tinyshakespeare
from experiments.data._wall_following import (
    ACTIONS as ACTIONS,
    wall_following as wall_following,
    WallFollowing as WallFollowing,
)
