"""The error of a study that cannot go on, to be shown without a traceback."""


class DataError(Exception):
    """Something outside the program is wrong: a file, a folder, a network, an option.

    Its message says what was found and what to do. `python -m experiments` prints the
    message and exits with code 1; code that calls a study's `main` can catch it.
    """
