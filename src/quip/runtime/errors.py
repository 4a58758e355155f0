"""Errors that a user can correct. Each has a message of one line, which says what to do, and an
exit code."""


class QuipError(Exception):
    """An error that the user can correct. `str(error)` is the message of one line."""

    exit_code = 2


class ParamsError(QuipError):
    """params.yaml has an unknown key, a missing key or a wrong value."""


class DataError(QuipError):
    """A data file is missing, empty or malformed."""


class WeightsError(QuipError):
    """A model file is missing, damaged or different from its pin."""


class EndpointError(QuipError):
    """A large-model endpoint failed. Earlier replies are kept."""

    exit_code = 3
