"""The errors a user can meet. Each is one line that says what to do, and an exit code."""


class QuipError(Exception):
    """Something the user can mend. `str(error)` is the one line that is shown."""

    exit_code = 2


class ParamsError(QuipError):
    """params.yaml asks for something that does not exist or has the wrong type."""


class DataError(QuipError):
    """A data file is missing, empty or malformed."""


class WeightsError(QuipError):
    """A model file is missing, damaged or not the one that was pinned."""


class EndpointError(QuipError):
    """A large-model endpoint could not be used. What was answered before is kept."""

    exit_code = 3
