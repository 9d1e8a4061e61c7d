"""Reading of tables from users' text files: CSV with any usual delimiter and header."""

from experiments.data.tables._numbers import DECIMALS as DECIMALS
from experiments.data.tables._read import read_columns as read_columns, Table as Table
