"""Error of a study that cannot continue; it is shown without a traceback."""


class DataError(Exception):
    """A problem outside the program: a file, a folder, the network, an option.

    Its message says what was found and what to do. `python -m experiments` prints the
    message and exits with code 1; code that calls a study's `main` can catch it.
    """
