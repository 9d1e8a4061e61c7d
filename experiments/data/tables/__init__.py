"""Reading of tables from a user's text file: CSV with any usual delimiter or header."""

from experiments.data.tables._numbers import DECIMALS as DECIMALS
from experiments.data.tables._read import read_columns as read_columns, Table as Table
