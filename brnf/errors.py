"""The one exception a user is meant to see."""

__all__ = ["UserError"]


class UserError(Exception):
    """Report a mistake the user can mend.

    The message is one line that names the file, the key or the image and says what to do. A stage
    prints it and exits with status 2, without a traceback.
    """
