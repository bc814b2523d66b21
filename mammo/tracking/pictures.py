"""An image as MLflow's image view expects it: a PNG and a small WebP, named by key and step."""

import io
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.tracking.answers import Refused

_NO_KEY = re.compile(r"[^a-zA-Z0-9_\-./ ]")  # MLflow's rule for a key


def stem(key: str, step: int) -> str:
    """The name, without its ending, of a new image: the form is that of MlflowClient.log_image.

    A letter that no key may have is told by its number, so that two classes stay two.
    """
    plain = _NO_KEY.sub(lambda found: f"_{ord(found[0]):x}", key)
    now = int(time.time() * 1000)
    return f"{plain.replace('/', '~')}+step+{step}+timestamp+{now}+{uuid.uuid4()}"


def raw(image: NDArray[np.uint8]) -> bytes:
    """The pixels as .npy, which costs next to nothing: they are encoded when they are sent."""
    if image.dtype != np.uint8:
        raise TypeError(f"an image is {image.dtype}, not uint8")
    written = io.BytesIO()
    np.save(written, image, allow_pickle=False)
    return written.getvalue()


@contextmanager
def encoded(pixels: Path, name: str) -> Iterator[list[Path]]:
    """The files of the image whose `raw` pixels lie in a file; encoded again they are the same."""
    from mlflow.tracking.multimedia import compress_image_size, convert_to_pil_image

    try:
        image = np.load(pixels, allow_pickle=False)
    except (ValueError, EOFError) as error:  # a disk that failed, or a machine that lost its power
        raise Refused(f"its pixels are spoilt: {str(error).splitlines()[0]}") from error
    with tempfile.TemporaryDirectory() as scratch:
        full = convert_to_pil_image(image)
        places = [Path(scratch) / f"{name}.png", Path(scratch) / f"{name}+compressed.webp"]
        full.save(places[0])
        compress_image_size(full).save(places[1])
        yield places
