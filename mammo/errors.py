"""The errors a user can cause: each is one line that names the thing, its value and the remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)


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


@contextmanager
def disk_in_plain_words(source: str = "") -> Iterator[None]:
    """A full disk or a forbidden file is the user's to mend; other OSErrors are bugs.

    A file below `source`, the folder of a release, is not named: its name may be a patient's.
    """
    try:
        yield
    except OSError as error:
        below = source and Path(str(error.filename)).is_relative_to(Path(source).expanduser())
        if error.errno == errno.EACCES and below:
            raise DataError(
                f"a file or folder in source {source} cannot be read: {error.strerror}; "
                "give yourself the right to read all that is in it"
            ) from error
        if error.errno not in _OF_THE_DISK:
            raise
        where = error.filename2 or error.filename or "the work folder"  # of a copy, its target
        raise DataError(
            f"{where} cannot be written: {error.strerror}; free space or set work_dir"
        ) from error
