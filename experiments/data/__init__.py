"""Loaders of real data sets; most are downloaded once, and their sha256 is checked."""

from experiments.data._breathing import breathing as breathing
from experiments.data._digits import Digits as Digits, digits as digits
from experiments.data._fsdd import (
    FSDD as FSDD,
    fsdd as fsdd,
    SPEAKERS as SPEAKERS,
    without_speaker as without_speaker,
)
from experiments.data._mnist import MNIST as MNIST, mnist as mnist
from experiments.data._music import (
    jsb_chorales as jsb_chorales,
    KEYS as KEYS,
    LOWEST as LOWEST,
    Music as Music,
    nottingham as nottingham,
    Piece as Piece,
    to_piece as to_piece,
    to_roll as to_roll,
)
from experiments.data._nyc_weather import (
    nyc_weather as nyc_weather,
    NYCWeather as NYCWeather,
)
from experiments.data._prices import (
    Shiller as Shiller,
    shiller as shiller,
    VIX as VIX,
    vix as vix,
)
from experiments.data._proben1 import (
    parse_proben1 as parse_proben1,
    Part as Part,
    Proben1 as Proben1,
    proben1 as proben1,
)
from experiments.data._python_reference import python_reference as python_reference
from experiments.data._seattle_weather import (
    seattle_weather as seattle_weather,
    SeattleWeather as SeattleWeather,
)
from experiments.data._sms_spam import sms_spam as sms_spam
from experiments.data._sunspots import Sunspots as Sunspots, sunspots as sunspots
from experiments.data._tatoeba import (
    is_of_tutorial as is_of_tutorial,
    Pair as Pair,
    SentencePairs as SentencePairs,
    tatoeba_fra_eng as tatoeba_fra_eng,
    tutorial_form as tutorial_form,
)
from experiments.data._text_file import (
    as_text as as_text,
    Text as Text,
    text_file as text_file,
)
from experiments.data._texts import (
    as_seen as as_seen,
    label as label,
    LabelledTexts as LabelledTexts,
    same_form as same_form,
    TextClasses as TextClasses,
)
from experiments.data._tinyshakespeare import tinyshakespeare as tinyshakespeare
from experiments.data._trec import trec as trec
from experiments.data._wall_following import (
    ACTIONS as ACTIONS,
    wall_following as wall_following,
    WallFollowing as WallFollowing,
)
from experiments.data._wav import read_wav as read_wav
from experiments.data._yin_yang import yin_yang as yin_yang, YinYang as YinYang
