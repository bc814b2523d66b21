"""Features on disk: those of an image are computed once for all runs, trials and workers."""

import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.classifiers.backbone import Network
from mammo.data.dataset import Dataset

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
_CHUNK = 32  # images read at a time
_DIGEST = 16  # bytes
log = logging.getLogger("mammo")


class FeatureStore:
    """Features in `folder`, a folder for each network, which any number of processes share.

    A vector is found by the digest of its image's pixels: whatever changes an image or a network
    leads to other names, and nothing that lies here can be out of date. A file holds what one
    process has computed, is written once, and is never changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(
        self,
        network: Network,
        data: Dataset,
        rows: Rows,
        device: torch.device,
        compute: Callable[[Rows], Vectors],
    ) -> Vectors:
        """Features (len(rows), F) of `rows` of `data`; `compute(rows)` makes those not known yet.

        Its result for a row must not depend on the others.
        """
        names = _pixel_digests(data, rows)
        place = self._folder / _network_digest(network, device)
        known = _read(place)
        if not known.keys() >= set(names):
            with _one_at_a_time(place):
                known = _read(place)  # another process may have been faster
                new = dict(zip(names, rows, strict=True))
                new = {name: row for name, row in new.items() if name not in known}
                if new:
                    found = compute(np.array(list(new.values()), np.int64))
                    _write(place, list(new), found)
                    known |= dict(zip(new, found, strict=True))
                    log.info("features: %d images computed, %d asked for", len(new), len(rows))
        with suppress(OSError):
            os.utime(place)  # `mammo gc` takes what nobody has used for long
        return np.stack([known[name] for name in names])


def _pixel_digests(data: Dataset, rows: Rows) -> list[bytes]:
    names = []
    for start in range(0, len(rows), _CHUNK):
        for image in data.images(rows[start : start + _CHUNK]):
            digest = hashlib.blake2b(str(image.shape).encode(), digest_size=_DIGEST)
            digest.update(np.ascontiguousarray(image).data)
            names.append(digest.digest())
    return names


def _network_digest(network: Network, device: torch.device) -> str:
    """Digest of all that decides on a feature: layers and numbers, kind of device, PyTorch."""
    digest = hashlib.sha256(f"{network.body} {device.type} {torch.__version__}".encode())
    tensors = {"mean": network.mean, "sd": network.sd, **network.body.state_dict()}
    for name, value in sorted(tensors.items()):
        numbers = value.detach().cpu().contiguous()
        digest.update(f"{name} {numbers.dtype} {tuple(numbers.shape)}".encode())
        digest.update(numbers.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _read(place: Path) -> dict[bytes, Vectors]:
    known: dict[bytes, Vectors] = {}
    for path in sorted(place.glob("*.npy")):
        try:
            table = np.load(path, mmap_mode="r")
            known |= zip(map(bytes, table["pixels"]), table["features"], strict=True)
        except (OSError, ValueError) as error:  # `mammo gc` or a disk was faster
            log.warning("features: %s cannot be read and is left out: %s", path, error)
    return known


def _write(place: Path, names: list[bytes], found: Vectors) -> None:
    kind = [("pixels", f"V{_DIGEST}"), ("features", "<f4", found.shape[1:])]
    table = np.empty(len(names), kind)
    table["pixels"] = np.frombuffer(b"".join(names), f"V{_DIGEST}")
    table["features"] = found
    path = place / f"{secrets.token_hex(8)}.npy"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            np.save(file, table)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        log.warning("features: not kept for other runs: %s", error)


@contextmanager
def _one_at_a_time(place: Path) -> Iterator[None]:
    """Let one process compute what others wait for; where a disk knows no locks, all do."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / "lock").open("ab")
    except OSError:
        yield
        return
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
