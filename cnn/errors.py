"""Every error a user can act on; the message says what is wrong, where, and what to do."""


class FilterscopeError(Exception):
    """Base of all errors that are shown without a traceback.

    `exit_code` is what the command ends with.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as text for any log, terminal or JSON, whatever a file's name is."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ConfigError(FilterscopeError):
    """A setting or an argument is unknown, malformed or out of range."""

    exit_code = 2


class StoreUnwritableError(ConfigError):
    """The artifact store cannot be created or written."""


class DataError(FilterscopeError):
    """A data file or data set is missing, damaged or not what it should be."""

    exit_code = 3


class UnreachableError(DataError):
    """A data set could not be fetched from any of its addresses."""


class ArtifactError(FilterscopeError):
    """An artifact of the store is missing or does not match its manifest."""


class TrainingError(FilterscopeError):
    """Training cannot go on, for example because the loss is not finite."""


class WorkerDiedError(FilterscopeError):
    """A process that worked on a part of a search ended before it was done."""


class ServerError(FilterscopeError):
    """Prefect's API cannot be reached, or its temporary server does not start."""


class GateError(FilterscopeError):
    """The gate rejected the model and the run was told to fail then."""

    exit_code = 4
