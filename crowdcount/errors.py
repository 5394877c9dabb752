"""Everything a user can fix, as one exception tree.

CrowdCountError           1  a problem at run time that the user can fix
├── MemoryExhaustedError  1  the work needs more memory than there is
├── WorkerEndedError      1  a process that prepares batches ended before its time
├── UsageError            2  the command was called in a way that cannot work
│   └── ConfigError       2  a setting is unknown or out of range
├── InputMissingError     3  an input does not exist; no work was begun
├── BadInputError         4  an input exists and cannot be used
│   └── NoCountError      4  a model gives no number for an image
├── GateFailedError       5  a threshold given by the user was not met
├── ValidationError       6  a data set contradicts its description
├── DivergedError         7  training produced a loss that is not finite
└── UntrustedFileError    8  a file is not safe to load

Any other exception is a bug of crowdcount and keeps its traceback.
"""

from typing import ClassVar

from crowdcount.wording import one_line


class CrowdCountError(Exception):
    """A problem that the user can fix.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, looked_for: str = "", next_step: str = "") -> None:
        """Create the error from the lines that the user sees.

        Args:
            message: The file or setting, the expected and the given value.
            looked_for: Places that were searched, or values that would do.
            next_step: A remedy.
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
        return "\n".join(map(one_line, lines))


class MemoryExhaustedError(CrowdCountError):
    """The work needs more memory at once than there is."""


class WorkerEndedError(CrowdCountError):
    """A process that prepares training batches ended before its time."""


class UsageError(CrowdCountError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of its range."""


class InputMissingError(CrowdCountError):
    """An input does not exist, or nothing matched; no work was begun."""

    exit_code = 3


class BadInputError(CrowdCountError):
    """An input exists and cannot be used."""

    exit_code = 4


class NoCountError(BadInputError):
    """A model gives no number for an image: its weights are damaged or diverged."""


class GateFailedError(CrowdCountError):
    """A threshold that the user gave was not met."""

    exit_code = 5


class ValidationError(CrowdCountError):
    """A data set contradicts its description."""

    exit_code = 6


class DivergedError(CrowdCountError):
    """Training produced a loss that is not finite."""

    exit_code = 7


class UntrustedFileError(CrowdCountError):
    """A file is not safe to load: it has a wrong checksum, or its pickle could run code."""

    exit_code = 8
