"""From what a setting names to a folder on disk: a path, a run id, runs:/… or models:/…."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError, DataError, TrackingError
from mammo.lineage import WITHDRAWN
from mammo.run import Reference

if TYPE_CHECKING:
    from mammo.tracking import Tracking

_ABOUT = {"dataset": "dataset.json", "model": "model.json"}
_DIGEST = re.compile(r"[0-9A-Za-z_-]{1,64}")  # the name of a folder, so no path
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"runs:/([^/]+)(?:/(.+))?")
_MODEL = re.compile(r"models:/([^/@]+)(@[^/@]+|/\d+)")


def on_hub(text: str, kind: str) -> bool:
    """Whether `text` is left to a step that knows the hub: a name that is no reference of ours."""
    ours = any(form.fullmatch(text) for form in (_MODEL, _RUN, _RUN_ID))
    return kind.endswith("or hub") and not ours and not Path(text).expanduser().exists()


def check_form(text: str, kind: str, setting: str) -> None:
    """ConfigError when `text` cannot name a `kind`; looks at the text and the disk alone.

    A kind is dataset or model, or several with " or " between: files are a local file or folder of
    any content, hub is a name that the step itself looks up.
    """
    if on_hub(text, kind):
        return
    kinds = kind.split(" or ")
    if "files" in kinds and Path(text).expanduser().exists():
        return
    if len(kinds) > 1:
        kind = _kind_there(text, kinds)
    folder = _folder(text)
    outside = ".." in text.split("/")  # of a run's artifacts
    if folder:
        _local(folder, kind, setting)
    elif outside or not any(form.fullmatch(text) for form in (_MODEL, _RUN, _RUN_ID)):
        raise ConfigError(
            f"{setting} {text[:200]!r} is no {kind}: give an existing folder, a run id, "
            "runs:/<id>/<path>, models:/<name>@<alias> or models:/<name>/<version>"
        )


def resolve(text: str, kind: str, setting: str, *, tracking: "Tracking", work: Path) -> Reference:
    """Find the `kind` (dataset or model) that `text` names; what is remote is fetched once."""
    check_form(text, kind, setting)
    kinds = kind.split(" or ")
    if len(kinds) > 1:
        kind = _kind_there(text, kinds)
        if kind == "files":
            return _files(Path(text).expanduser())
    local = _folder(text)
    if local:
        found = _local(local, kind, setting)
        from mammo.tracking import withdrawn

        _refuse_withdrawn(f"{setting} {text}", withdrawn(tracking, found.run_id, found.digest))
        return found
    if _MODEL.fullmatch(text):
        return _of_run(tracking.model_run(text), kind, text, tracking=tracking, work=work)
    match = _RUN.fullmatch(text)
    run_id, path = (match[1], match[2] or "") if match else (text, "")
    if not path and len(kinds) > 1:
        kind = _kind_of_run(run_id, kinds, tracking)
    path = path or kind
    uri = f"runs:/{run_id}/{path}"
    return _of_run(run_id, kind, uri, path=path, tracking=tracking, work=work)


def _folder(text: str) -> Path | None:
    """The folder that `text` names; None where it names none, or could be no path at all."""
    try:
        path = Path(text).expanduser()
        return path if text and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of a user unknown
        return None


def _kind_there(text: str, kinds: list[str]) -> str:
    """Which of `kinds` the reference `text` names, as far as text and disk tell; else the first."""
    local = Path(text).expanduser()
    for kind in kinds:
        about = _ABOUT.get(kind)
        if about and ((local / about).is_file() or (local / kind / about).is_file()):
            return kind
    if "files" in kinds and local.exists():
        return "files"
    path = text.rpartition("/")[2]
    if text.startswith("models:/"):
        return "model"
    return path if path in kinds else kinds[0]


def _kind_of_run(run_id: str, kinds: list[str], tracking: "Tracking") -> str:
    """Which of `kinds` the run holds, the first where it holds none."""
    ours = [kind for kind in kinds if kind in _ABOUT]
    run_id = _real(run_id, tracking)
    return next((kind for kind in ours if tracking.has_artifact(run_id, kind)), ours[0])


def _real(run_id: str, tracking: "Tracking") -> str:
    """The run itself, or the one that the empty run of `mlflow run` points to."""
    run = tracking.get(run_id)
    tags = run.data.tags
    return str(tags.get("mammo.reused") or tags.get("mammo.continues") or run.info.run_id)


def _files(path: Path) -> Reference:
    """A file or a folder that a step reads itself; its digest covers names and contents."""
    path = path.resolve()
    each = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, each):
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path.parent)}\0{content}\n".encode())
    return Reference(str(path), path, digest.hexdigest()[:32])


def _local(folder: Path, kind: str, setting: str) -> Reference:
    for path in (folder, folder / kind):
        if (path / _ABOUT[kind]).is_file():
            said = _read(path, kind, setting)
            path = path.resolve()
            return Reference(str(path), path, str(said["digest"]), str(said.get("run_id", "")))
    raise ConfigError(f"{setting} {str(folder)!r} is no {kind}: it has no {_ABOUT[kind]}")


def _read(folder: Path, kind: str, setting: str) -> dict[str, Any]:
    """What the `kind` in `folder` says about itself."""
    about = folder / _ABOUT[kind]
    try:
        said: dict[str, Any] = json.loads(about.read_text())
        if not isinstance(said["digest"], str) or not _DIGEST.fullmatch(said["digest"]):
            raise ValueError("it has no digest")
        if not _are_parents(said.get("parents", [])):
            raise ValueError("its parents are no list of digest and uri")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        made = {"dataset": "preprocess", "model": "train"}[kind]
        raise ConfigError(
            f"{setting} {about} is corrupt ({error}); delete {folder} and fetch or {made} it again"
        ) from None
    return said


def _are_parents(said: Any) -> bool:
    return isinstance(said, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("uri", ""), str)
        and isinstance(each.get("digest"), str)
        and _DIGEST.fullmatch(each["digest"])
        for each in said
    )


def _of_run(
    run_id: str, kind: str, uri: str, *, tracking: "Tracking", work: Path, path: str = ""
) -> Reference:
    run_id = _real(run_id, tracking)
    run = tracking.get(run_id)
    _refuse_withdrawn(uri, run.data.tags.get(WITHDRAWN, ""))
    path = path or kind
    if not tracking.has_artifact(run_id, path):
        _refuse_missing(run_id, kind, tracking)
    # the tag is of the main output: a run may hold other models beside it
    beside = kind == "model" and path != kind
    digest = "" if beside else run.data.tags.get("mammo.digest", "")
    place = work / f"{kind}s" / (digest or f"{run_id}-{path.replace('/', '-')}")
    if not (place / _ABOUT[kind]).is_file():
        tracking.download(run_id, path, place, proof=_ABOUT[kind])
    if not (place / _ABOUT[kind]).is_file():
        raise TrackingError(f"{uri} holds no {kind}: it has no {_ABOUT[kind]}")
    said = _read(place, kind, uri)
    if kind == "dataset":
        _fetch_parents(place, said, tracking=tracking, work=work)
    return Reference(uri, place, str(said["digest"]), run_id)


def _refuse_withdrawn(named: str, patients: str) -> None:
    if patients:
        raise DataError(
            f"{named} was withdrawn with patient {patients}; make it again without that patient"
        )


def _fetch_parents(
    folder: Path, said: Mapping[str, Any], *, tracking: "Tracking", work: Path
) -> None:
    """Bring the datasets whose pixels a mixed one points into beside it."""
    for parent in said.get("parents", []):
        if not parent.get("uri"):
            continue
        if not (folder.parent / parent["digest"] / "dataset.json").is_file():
            resolve(parent["uri"], "dataset", "parent", tracking=tracking, work=work)


def _refuse_missing(run_id: str, kind: str, tracking: "Tracking") -> None:
    """TrackingError where one can tell what to name instead of a run that holds no `kind`."""
    other = next(each for each in _ABOUT if each != kind)
    if tracking.has_artifact(run_id, other):
        makers = {"dataset": "preprocess, sample or mix", "model": "train_generator or _classifier"}
        raise TrackingError(
            f"run {run_id} holds a {other} and no {kind}; give one of {makers[kind]}"
        )
    if kind == "dataset":
        return  # it may have been fetched before; else its absence is found next
    children = [
        child.info.run_id
        for child in tracking.children(run_id)
        if tracking.has_artifact(child.info.run_id, "model")
    ]
    if children:
        raise TrackingError(
            f"run {run_id} has no model of its own but {len(children)} children that have: "
            f"name one of {', '.join(sorted(children))}"
        )
    raise TrackingError(f"run {run_id} has no model; name a finished training run")
