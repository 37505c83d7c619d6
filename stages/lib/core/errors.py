"""The only exception whose message is written for users."""


class InputError(Exception):
    """An invalid input.

    Its message is one line that says what is wrong, where (file and row, or parameter), and what
    would be valid.
    """
