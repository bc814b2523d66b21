"""The errors a user can cause: each is one line that names the thing, its value and the remedy."""


class MammoError(Exception):
    """A mistake in the settings, the data or the environment; shown as one line, exit code 2."""


class ConfigError(MammoError):
    """A setting has a value that cannot be used."""


class DataError(MammoError):
    """An image, a manifest or a split is not what it should be."""


class CheckpointError(MammoError):
    """A model or checkpoint is missing, broken or of another kind."""


class TrackingError(MammoError):
    """A run, an artifact or the tracking server cannot be reached or does not exist."""
