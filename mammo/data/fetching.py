"""Public collections onto the disk, series by series: whole or not there, and never twice."""

import fcntl
import json
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.data.collections import describe, find, index_version, select, size_text
from mammo.errors import ConfigError, DataError
from mammo.settings import Count

if TYPE_CHECKING:
    import pandas as pd

_STATE = "fetch.json"
_PARTIAL = ".partial"  # hidden: no adapter reads what is not whole
_BATCH_BYTES = 10**9
_BATCH_SERIES = 50
_PATIENCE_S = 15.0  # for the first answer of the store; a proxy may take its time
_ROOM = 1.02  # of a file system's blocks over the bytes in them


@dataclass(frozen=True)
class Series:
    """One series as the index describes it, and where it goes below the output folder."""

    uid: str
    place: str  # PatientID/SeriesInstanceUID
    files: int
    bytes: int


def fetch(
    name: str, *, output: str = "", limit: Count = 0, masks: bool = False, endpoint: str = ""
) -> Iterator[str]:
    """Download collection NAME into the folder `output`; the same command continues.

    output: folder, one subfolder a patient; limit: patients to take, 0 for all;
    masks: of cbis_ddsm, the lesion masks too; endpoint: address of a mirror of the archive's
    object store (S3), empty for the archive itself.
    """
    collection = find(name)
    if not output:
        raise ConfigError(f"output is missing; give --output and a folder for {collection.id}")
    selected = select(collection, masks=masks, limit=limit)
    yield from describe(collection, selected)
    client, endpoint = _client(endpoint)
    folder = Path(output).expanduser()
    with _only_process_in(folder):
        _check_state(folder, collection.id)
        wanted = _series_of(selected)
        todo = [each for each in wanted if not _is_whole(folder / each.place, each)]
        yield f"{'there':11} {len(wanted) - len(todo):,} of {len(wanted):,} series"
        if todo:
            _check_room(folder, todo, collection.id)
            _check_reachable(endpoint, collection.id)
            _download(client, folder, todo)
        missing = [each for each in wanted if not _is_whole(folder / each.place, each)]
        _write_state(folder, collection.id, wanted, missing)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} series of {collection.id} did not arrive whole from "
            f"{endpoint}; what did is kept, the same command continues"
        )
    shutil.rmtree(folder / _PARTIAL, ignore_errors=True)
    yield f"{'done':11} {folder}"


def _series_of(selected: "pd.DataFrame") -> list[Series]:
    columns = selected[["PatientID", "SeriesInstanceUID", "instanceCount", "bytes"]]
    return [
        Series(uid, f"{patient}/{uid}", int(files), int(size))
        for patient, uid, files, size in columns.itertuples(index=False)
    ]


def _is_whole(folder: Path, series: Series) -> bool:
    """Whether all files of the series are there, by their number and their bytes together."""
    if not folder.is_dir():
        return False
    sizes = [path.stat().st_size for path in folder.iterdir() if path.suffix == ".dcm"]
    return len(sizes) == series.files and sum(sizes) == series.bytes


def _download(client: Any, folder: Path, todo: Sequence[Series]) -> None:
    """Bring the series batch by batch; stops when a whole batch brings nothing."""
    from tqdm import tqdm

    total = sum(each.bytes for each in todo)
    with tqdm(total=total, unit="B", unit_scale=True, desc="fetch", mininterval=1.0) as bar:
        for batch in _batches(todo):
            _bring(client, folder, batch)
            arrived = [each for each in batch if _is_whole(folder / each.place, each)]
            bar.update(sum(each.bytes for each in arrived))
            if not arrived:
                return


def _bring(client: Any, folder: Path, batch: Sequence[Series]) -> None:
    """Fetch a batch beside its final place, and rename each series that is whole."""
    partial = folder / _PARTIAL
    partial.mkdir(exist_ok=True)
    for each in batch:  # a series that lost a file goes back, so that only that file is fetched
        if (folder / each.place).exists() and not (partial / each.uid).exists():
            (folder / each.place).replace(partial / each.uid)
    client.download_from_selection(
        downloadDir=str(partial),
        seriesInstanceUID=[each.uid for each in batch],
        dirTemplate="%SeriesInstanceUID",
        quiet=True,
        show_progress_bar=False,
        use_s5cmd_sync=True,  # leaves alone the files that are there with their full size
    )
    for each in batch:
        if _is_whole(partial / each.uid, each):
            final = folder / each.place
            final.parent.mkdir(exist_ok=True)
            if final.exists():
                shutil.rmtree(final)
            (partial / each.uid).replace(final)


def _batches(todo: Sequence[Series]) -> Iterator[list[Series]]:
    batch: list[Series] = []
    for each in todo:
        full = sum(other.bytes for other in batch) + each.bytes > _BATCH_BYTES
        if batch and (full or len(batch) == _BATCH_SERIES):
            yield batch
            batch = []
        batch.append(each)
    yield batch


def _client(endpoint: str) -> tuple[Any, str]:
    """idc-index's client and the address of the object store that it asks."""
    try:
        import idc_index.index as idc
    except ImportError:
        raise ConfigError(
            'public collections need the package idc-index; pip install "mammo[idc]"'
        ) from None
    # it reports on every batch, and as an error what is told here in one line
    logging.getLogger("idc_index.index").setLevel(logging.CRITICAL)
    if endpoint:
        idc.aws_endpoint_url = endpoint  # the client takes no address of its own
    return idc.IDCClient(), str(idc.aws_endpoint_url)


def _check_room(folder: Path, todo: Sequence[Series], name: str) -> None:
    there = folder / _PARTIAL
    held = sum(path.stat().st_size for path in there.rglob("*") if path.is_file())
    need = round(max(0, sum(each.bytes for each in todo) - held) * _ROOM)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"{name} needs {size_text(need)} in {folder}, where {size_text(free)} are free; "
            "free space, give another --output, or take fewer patients with --limit"
        )


def _check_reachable(endpoint: str, name: str) -> None:
    """Refuse at once what the downloader would try for minutes."""
    try:
        with urllib.request.urlopen(endpoint, timeout=_PATIENCE_S):
            pass
    except urllib.error.HTTPError as answer:
        answer.close()  # a refusal is an answer: the store is there
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{name} cannot be fetched: {endpoint} cannot be reached ({reason}); connect this "
            "machine (HTTPS_PROXY is heeded), or fetch elsewhere and copy the folder; then give "
            "the same command again"
        ) from None


@contextmanager
def _only_process_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold its lock: two downloads into one would take each other's files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"output {folder} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another fetch into {folder} is running; wait for it or give another --output"
            ) from None
        yield


def _check_state(folder: Path, name: str) -> None:
    """Refuse a folder that holds another collection."""
    path = folder / _STATE
    try:
        held = str(json.loads(path.read_text())["collection"]) if path.exists() else name
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is broken; delete it, what was fetched is found again") from None
    if held != name:
        raise ConfigError(f"output {folder} holds {held}; give another --output for {name}")
    _write_state(folder, name, [], [])


def _write_state(
    folder: Path, name: str, wanted: Sequence[Series], missing: Sequence[Series]
) -> None:
    """Say in the folder what it holds; read by the next fetch and by people."""
    said = {
        "collection": name,
        "index": index_version(),
        "series": len(wanted),
        "complete": bool(wanted) and not missing,
    }
    fresh = folder / f"{_STATE}.new"
    fresh.write_text(json.dumps(said, indent=2) + "\n")
    fresh.replace(folder / _STATE)
