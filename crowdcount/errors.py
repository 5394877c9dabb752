"""Everything a user can fix, as one exception tree.

CrowdCountError           1  something at run time that the user can mend
├── MemoryExhaustedError  1  the work needs more memory than there is
├── UsageError            2  the command was called in a way that cannot work
│   └── ConfigError       2  a setting is unknown or out of range
├── InputMissingError     3  an input is not there; no work was begun
├── BadInputError         4  an input is there and cannot be used
│   └── NoCountError      4  a model gives no number for an image
├── GateFailedError       5  a threshold given by the user was not met
├── ValidationError       6  a data set does not hold what it promises
├── DivergedError         7  training produced a loss that is not finite
└── UntrustedFileError    8  a file asks for more trust than it has earned

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from typing import ClassVar


class CrowdCountError(Exception):
    """A problem that the user can fix.

    Attributes:
        exit_code: What the command line returns to the shell.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, looked_for: str = "", next_step: str = "") -> None:
        """Say what is wrong, what was looked for or found, and what to do about it.

        Args:
            message: One line: which file or setting, what was expected and found.
            looked_for: Where was looked, and for what; one line.
            next_step: What the user can do now; one line.
        """
        super().__init__(message)
        self.message = message
        self.looked_for = looked_for
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.message]
        if self.looked_for:
            lines.append(f"  looked for  {self.looked_for}")
        if self.next_step:
            lines.append(f"  next step   {self.next_step}")
        return "\n".join(lines)


class MemoryExhaustedError(CrowdCountError):
    """The work needs more memory at once than there is."""


class UsageError(CrowdCountError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of its range."""


class InputMissingError(CrowdCountError):
    """An input is not there, or nothing matched: no work was begun."""

    exit_code = 3


class BadInputError(CrowdCountError):
    """An input is there and cannot be used."""

    exit_code = 4


class NoCountError(BadInputError):
    """A model gives no number for an image: its weights are damaged or diverged."""


class GateFailedError(CrowdCountError):
    """A threshold that the user gave was not met."""

    exit_code = 5


class ValidationError(CrowdCountError):
    """A data set does not hold what it promises."""

    exit_code = 6


class DivergedError(CrowdCountError):
    """Training produced a loss that is not finite."""

    exit_code = 7


class UntrustedFileError(CrowdCountError):
    """A file asks for more trust than it has earned: a wrong checksum, an unsafe pickle."""

    exit_code = 8
