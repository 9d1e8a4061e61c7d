"""Tables in text files of users: CSV in its many forms."""

from experiments.data.tables._numbers import DECIMALS as DECIMALS
from experiments.data.tables._read import read_columns as read_columns, Table as Table
