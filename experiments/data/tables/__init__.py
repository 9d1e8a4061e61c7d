"""Reading of tables from a user's text file: CSV with any usual delimiter or header."""

from experiments.data.tables._ahead import (
    phases as phases,
    season_of as season_of,
    times_after as times_after,
)
from experiments.data.tables._numbers import DECIMALS as DECIMALS
from experiments.data.tables._order import text_of as text_of, texts_of as texts_of
from experiments.data.tables._read import (
    number_columns as number_columns,
    read_columns as read_columns,
    Table as Table,
)
from experiments.data.tables._times import DATES as DATES
