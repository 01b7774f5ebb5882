"""The exceptions a user is meant to see."""

from pathlib import Path

__all__ = ["DamagedProduct", "UserError"]

LONGEST = 1200
"""Characters of a message."""


class UserError(Exception):
    """Report a mistake the user can mend.

    The message is one line that names the file, the key or the image and says what to do. A stage
    prints it and exits with status 2, without a traceback. It often quotes what was found in a
    file: line breaks become spaces, other control characters are written out, and what is very long
        is cut in its middle.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split()) if set(message) & set("\n\r\t\v\f") else message
        line = "".join(
            letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line
        )
        super().__init__(
            line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        )


class DamagedProduct(UserError):
    """Report a file or folder that a rule of the workflow wrote, can write again, and that cannot
    be used as it is.

    Called by the workflow, a stage sets such a product aside, so that the next run makes it anew
    (:func:`brnf.engine.runtime.run_stage`).

    Arguments:
        path: the product.
        fault: what is wrong with it.
        stage: that writes it.
    """

    def __init__(self, path: Path, fault: str, stage: str) -> None:
        self.path, self.fault, self.stage = path, " ".join(fault.split()), stage
        super().__init__(f"{path}: {self.fault}; remove it and run {stage} again")

    def __reduce__(self) -> tuple[type["DamagedProduct"], tuple[Path, str, str]]:
        return DamagedProduct, (self.path, self.fault, self.stage)
