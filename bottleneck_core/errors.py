"""The one exception that is a message to the user and not a fault of the program."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: one sentence that names the input and the fix.

    The command line prints it as `error: <sentence>` on stderr and exits with code 2; pages show it as a message.
    """
