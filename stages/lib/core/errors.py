"""The one exception that a user is meant to see."""


class InputError(Exception):
    """A wrong input.

    Its message is one line: what, where (file and row, or parameter), and what would be right.
    """
