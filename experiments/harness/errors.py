"""The error raised if a study cannot continue; it is printed without a traceback."""


class DataError(Exception):
    """A problem outside the code: with a file, a folder, the internet or an option.

    The message says what the problem is and how to solve it. The command `python -m
    experiments` prints the message and exits with code 1. Python code that calls the
    function `main` of a study can catch the error.
    """
