"""The error of a study that cannot continue; it is printed without a traceback."""


class DataError(Exception):
    """A problem outside the program: a file, a folder, the network, an option.

    The message of the error says what was found and what to do. `python -m experiments`
    prints the message and exits with code 1. Code that calls the `main` of a study can
    catch the error.
    """
