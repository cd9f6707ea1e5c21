"""The errors that a user can act on; messages say what is wrong, where, and what to do."""


class FilterscopeError(Exception):
    """Base of all errors that are shown without a traceback.

    `exit_code` is the exit code of the command.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as valid UTF-8, with undecodable bytes of file names escaped."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ConfigError(FilterscopeError):
    """A setting or an argument is unknown, malformed or out of range."""

    exit_code = 2


class StoreUnwritableError(ConfigError):
    """The artifact store cannot be created or written."""


class DataError(FilterscopeError):
    """A data file or data set is missing, damaged or not what was expected."""

    exit_code = 3


class UnreachableError(DataError):
    """A data set could not be downloaded from any of its addresses."""


class ArtifactError(FilterscopeError):
    """An artifact in the store is missing or does not match its manifest."""


class TrainingError(FilterscopeError):
    """The training cannot continue, for example because the loss is not finite."""


class WorkerDiedError(FilterscopeError):
    """A worker process ended before it had finished its part of a search."""


class ServerError(FilterscopeError):
    """Prefect's API cannot be reached, or its temporary server does not start."""


class GateError(FilterscopeError):
    """The gate rejected the model, and `gate.fail` is set."""

    exit_code = 4
