"""What a user did wrong, in one line."""


class DoorwardError(Exception):
    """A mistake in what was given, told in one line that names the thing, its value and what was expected.

    The command line prints the line and ends with exit code 2, without a traceback.
    """


class OutputExistsError(DoorwardError):
    """The output folder exists already, and nothing said that it may be replaced."""
