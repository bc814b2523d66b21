"""Runs one step inside a tracked run: check, resolve, reuse or resume, run, close."""

import fcntl
import hashlib
import importlib
import inspect
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mammo import launching
from mammo.errors import ConfigError, MammoError, disk_in_plain_words
from mammo.launch import at_its_place, check_launcher
from mammo.references import check_form, on_hub, resolve
from mammo.run import Listener, Reference, Result

if TYPE_CHECKING:
    from mammo.tracking import TrackedRun, Tracking

LOG = logging.getLogger("mammo")
_LOCK_S = 0.2  # between looks at a lock that is waited for
STEPS = (
    "main",
    "preprocess",
    "train_generator",
    "sample",
    "mix",
    "train_classifier",
    "evaluate",
    "tune",
    "promote",
)
COMMON: dict[str, Any] = {
    "launcher": "local",
    "cluster": "",
    "run_name": "",
    "reuse": True,
    "offline": False,
    "work_dir": "",
}
# Settings that every entry point takes, also where they have nothing to say.
EVERYWHERE: dict[str, Any] = {"seed": 0, "device": "auto"}
# Settings that do not change what a step computes, and so stay out of its fingerprint.
OPERATIONAL = frozenset({*COMMON, "workers", "jobs", "device", "storage", "upload_minutes"})


def step_module(step: str) -> ModuleType:
    if step not in STEPS:
        raise ConfigError(f"unknown step {step!r}; choose one of {', '.join(STEPS)}")
    return importlib.import_module(f"mammo.steps.{step}")


def run_step(step: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run `step` as the command line asks; returns the JSON object of its last line."""
    module = step_module(step)
    joined = os.environ.pop("MLFLOW_RUN_ID", "")  # a child process or run must not join it too
    try:
        settings = at_its_place(settings)
        check(module, settings)
        work = work_folder(str(settings.get("work_dir", "")))
    except MammoError as error:
        fail_joined(joined, str(error))
        raise
    from mammo.tracking import Tracking, store_in_plain_words

    offline = bool(settings.get("offline", False))
    with store_in_plain_words(), Tracking(work, offline=offline) as tracking:
        return Execution(step, module, dict(settings), tracking, work, joined=joined).answer()


def fail_joined(run_id: str, line: str) -> None:
    """Mark the run that `mlflow run` opened as FAILED before the step could start."""
    if run_id:
        from mammo.tracking import Tracking

        with Tracking() as tracking:
            tracking.set_status(run_id, "FAILED", error=line)


def check(module: ModuleType, settings: Mapping[str, Any]) -> None:
    """Let a step refuse its settings before anything expensive starts."""
    for name in getattr(module, "INPUTS", {}):
        required = inspect.signature(module.run).parameters[name].default is inspect.Parameter.empty
        if required and not settings.get(name):
            raise ConfigError(f"{name} is empty; it needs a path, a run id or runs:/<id>/<path>")
        for text in named(module, settings, name):
            check_form(text, module.INPUTS[name], name)
    if hasattr(module, "check"):
        module.check(settings)
    check_launcher(settings)


def named(module: ModuleType, settings: Mapping[str, Any], name: str) -> list[str]:
    """The references in a setting: one, or with commas between where the step takes SEVERAL."""
    text = str(settings.get(name, ""))
    texts = text.split(",") if name in getattr(module, "SEVERAL", ()) else [text]
    return [each.strip() for each in texts if each.strip()]


def work_folder(given: str) -> Path:
    """The work folder: `given`, else MAMMO_HOME, else .mammo in the current folder."""
    folder = Path(given or os.environ.get("MAMMO_HOME") or ".mammo").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"work_dir {folder} cannot be made: {error.strerror}") from None
    return folder


@cache
def code_digest() -> str:
    """Digest of the package's own source files: another code, another fingerprint."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def fingerprint_of(
    step: str, settings: Mapping[str, Any], inputs: Mapping[str, list[Reference]], extra: str = ""
) -> str:
    """Digest of what determines a step's result: its settings, its inputs, the code."""
    named = {
        name: [each.digest for each in inputs[name]] if name in inputs else value
        for name, value in _flat(settings).items()
        if name.rpartition(".")[2] not in OPERATIONAL
    }
    text = json.dumps([step, named, code_digest(), extra], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Execution:
    """One step with its settings on its way through reuse, resume and the run itself."""

    def __init__(
        self,
        step: str,
        module: ModuleType,
        settings: dict[str, Any],
        tracking: "Tracking",
        work: Path,
        *,
        joined: str = "",
        parent: "TrackedRun | None" = None,
        listener: Listener | None = None,
        patient: bool = False,
        opened: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.step = step
        self.module = module
        self.settings = settings
        self.tracking = tracking
        self.work = work
        self.joined = joined
        self.parent = parent
        self.listener = listener
        self.patient = patient  # waits for another process that computes the same
        self.opened = opened  # hears the id of the run that is computed
        self.inputs: dict[str, list[Reference]] = {}
        self.name = str(settings.get("run_name") or step)
        self.run_id = ""  # once it is known

    def answer(self) -> dict[str, Any]:
        """Reuse, continue or compute; the run of `mlflow run` is closed in any case."""
        with self._joined_run_fails_with_us():
            self.inputs = self._resolve()
            extra = self.module.source_digest(self.settings) if self._has("source_digest") else ""
            fingerprint = fingerprint_of(self.step, self.settings, self.inputs, extra)
            folder = self.work / "runs" / fingerprint
            with _only_process_in(folder, patient=self.patient):
                done = self._finished(fingerprint)
                if done is not None and self._is_whole(done):
                    self._clear(folder)
                    return self._reused(done)
                line = self._computed(fingerprint, folder)
                if self.patient:  # others that wait for the lock ask the server for its end
                    self.tracking.settle()
                return line

    def _clear(self, folder: Path) -> None:
        """Remove what a run left behind that jobs ended after its own process was gone."""
        from mammo.tracking import unfinished_run

        if folder.is_dir() and not unfinished_run(self.tracking, folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _has(self, name: str) -> bool:
        return hasattr(self.module, name)

    def _finished(self, fingerprint: str) -> Any:
        """The finished run to reuse; with reuse false one that this very parent has launched."""
        if not getattr(self.module, "REUSABLE", True):
            return None
        if self.settings.get("reuse", True):
            return self.tracking.finished(fingerprint)
        return self.tracking.finished(fingerprint, self.parent.id) if self.parent else None

    def _resolve(self) -> dict[str, list[Reference]]:
        found = {}
        for name, kind in getattr(self.module, "INPUTS", {}).items():
            references = [
                resolve(each, kind, name, tracking=self.tracking, work=self.work)
                for each in named(self.module, self.settings, name)
                if not on_hub(each, kind)
            ]
            if references:
                found[name] = references
        return found

    def _is_whole(self, done: Any) -> bool:
        """Whether the artifacts that a finished run hands on are still there."""
        for uri in json.loads(done.data.tags["mammo.result"])["outputs"].values():
            run_id, _, path = str(uri).removeprefix("runs:/").partition("/")
            if uri.startswith("runs:/") and not self.tracking.has_artifact(run_id, path):
                LOG.warning("%s: artifact %s is gone; computed again", self.step, uri)
                return False
        return True

    def _reused(self, done: Any) -> dict[str, Any]:
        self.run_id = run_id = done.info.run_id
        LOG.info("%s: finished run %s has the same settings and inputs; reused", self.step, run_id)
        self.link("reused", run_id)
        said = json.loads(done.data.tags["mammo.result"])
        return self.line(run_id, Result(said["outputs"], said["metrics"], said["digest"]))

    def link(self, how: str, run_id: str) -> None:
        """Let the joined run, or an empty child of the parent, point to the run that counts."""
        if self.joined:
            self.tracking.set_status(self.joined, "FINISHED", **{how: run_id})
        elif self.parent is not None and self.tracking.parent_of(run_id) != self.parent.id:
            link = self.tracking.create_run(self.name, self.step, self.parent.id)
            self.tracking.set_status(link, "FINISHED", **{how: run_id})

    def _computed(self, fingerprint: str, folder: Path) -> dict[str, Any]:
        """Do the step where its launcher says, and hand on what it made."""
        from mammo.tracking import closing

        launcher = self.settings.get("launcher", "local")
        if launcher != "slurm":
            launching.refuse_beside_jobs(folder)
        if launcher == "none":
            return launching.scheduled(self, fingerprint, folder)
        if launcher == "slurm":
            result = launching.by_jobs(self, fingerprint, folder)
        else:
            self.run_id = run_id = self.held_run(folder)
            with closing(self.tracking, run_id, last=self.parent is None):
                result = self._done_here(self.opened_run(run_id, fingerprint, folder))
        shutil.rmtree(folder, ignore_errors=True)
        return self.line(self.run_id, result)

    def _done_here(self, tracked: "TrackedRun") -> Result:
        """Do the step, its parts in processes of their own."""
        from mammo.tracking import accompanied

        sample = self.parent is None
        with accompanied(tracked, self.step, self.settings, sample=sample):
            launching.parts_here(self, tracked)
            return carry_out(self.step, self.module, tracked, self.settings)

    def opened_run(self, run_id: str, fingerprint: str, folder: Path) -> "TrackedRun":
        """The run with what it is to do."""
        from mammo.tracking import TrackedRun

        tracked = TrackedRun(
            self.tracking,
            run_id,
            folder=folder,
            work=self.work,
            inputs=self.inputs,
            launcher=partial(launch, reuse=bool(self.settings.get("reuse", True))),
            listener=self.listener,
        )
        self.opened(run_id)
        tracked.params(_flat(self.settings))
        tracked.tags(self._tags(fingerprint))
        tracked.config({key: self.settings[key] for key in self.settings if key != "work_dir"})
        return tracked

    def held_run(self, folder: Path, *, join: bool = True) -> str:
        """The run to continue, else the one `mlflow run` opened, else a new one.

        That of `mlflow run` is over with this process; where not to `join` it, it only points on.
        """
        from mammo.tracking import unfinished_run
        from mammo.tracking.ownership import STALE_S

        held = unfinished_run(self.tracking, folder)
        if held and held != self.joined:
            self.tracking.claim(held, wait_s=2 * STALE_S if self.patient else 0.0)
            LOG.info("%s: continues the unfinished run %s", self.step, held)
            self.tracking.reopen(held)
            self.link("continues", held)
            return held
        if not held:  # what is there is of no run that could go on
            shutil.rmtree(folder, ignore_errors=True)
        if self.joined and join:
            self.tracking.claim(self.joined)
            return self.joined
        parent = self.parent.id if self.parent is not None else ""
        created = self.tracking.create_run(self.name, self.step, parent)
        if self.joined:
            self.link("continues", created)
        return created

    def _tags(self, fingerprint: str) -> dict[str, str]:
        tags = {"mammo.step": self.step, "mammo.fingerprint": fingerprint}
        for name, references in self.inputs.items():
            tags[f"mammo.input.{name}"] = ",".join(
                each.run_id or each.digest for each in references
            )
        if self.settings.get("run_name"):
            tags["mlflow.runName"] = self.name
        return tags

    def line(self, run_id: str, result: Result) -> dict[str, Any]:
        return {
            "step": self.step,
            "run_id": run_id,
            "status": "FINISHED",
            "outputs": result.outputs,
            "metrics": result.metrics,
        }

    @contextmanager
    def _joined_run_fails_with_us(self) -> Iterator[None]:
        """Whatever ends the step before its own run is open ends the joined run with it."""
        try:
            yield
        except BaseException as error:
            from mammo.tracking import Taken, close_failed

            if isinstance(error, Taken):  # it is another's, who ends it
                raise
            if self.joined and self.tracking.is_open(self.joined):
                close_failed(self.tracking, self.joined, error)
            raise


def carry_out(
    step: str, module: ModuleType, tracked: "TrackedRun", settings: Mapping[str, Any]
) -> Result:
    """Do a step in this process; its result goes into the tags of its run too."""
    from mammo.tracking import conclude

    with disk_in_plain_words(str(settings.get("source", ""))):
        result: Result = module.run(tracked, **wanted(module, settings))
    # the JSON line has no word for a number that is not there
    finite = {name: value for name, value in result.metrics.items() if isfinite(value)}
    result = replace(result, metrics=finite)
    tracked.tags(_result_tags(result))
    conclude(tracked, step, settings, result.metrics, said=result.note)
    return result


def launch(
    parent: "TrackedRun",
    step: str,
    settings: Mapping[str, Any],
    name: str,
    listener: Listener | None,
    *,
    reuse: bool = True,
    patient: bool = False,
    opened: Callable[[str], None] = lambda run_id: None,
) -> Result:
    """Run `step` in this process as a child run of `parent`, which hands on its `reuse`.

    Where another process computes the same, `patient` waits for it. `opened` hears the id of the
    run that is computed.
    """
    from mammo.tracking import counted

    module = step_module(step)
    given = {**EVERYWHERE, **defaults(module), **COMMON, "reuse": reuse, **settings}
    given["run_name"] = name or step
    for nested, other in getattr(module, "NESTED", {}).items():
        given[nested] = {**defaults(step_module(other)), **settings.get(nested, {})}
    check(module, given)
    execution = Execution(
        step,
        module,
        given,
        parent.tracking,
        parent.work,
        parent=parent,
        listener=listener,
        patient=patient,
        opened=opened,
    )
    with counted(parent, name or step, step) as child:
        try:
            line = execution.answer()
        finally:
            child.run_id = execution.run_id
        child.metrics = line["metrics"]
    return Result(line["outputs"], line["metrics"])


def defaults(module: ModuleType) -> dict[str, Any]:
    """Default of every setting that has one."""
    return {
        name: each.default
        for name, each in inspect.signature(module.run).parameters.items()
        if each.default is not inspect.Parameter.empty
    }


def wanted(module: ModuleType, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that the step takes."""
    names = list(inspect.signature(module.run).parameters)[1:]
    found = {name: settings[name] for name in names if name in settings}
    if "step_settings" in names:  # settings of the steps that this one launches
        found["step_settings"] = {name: settings.get(name, {}) for name in module.NESTED}
    return found


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "work_dir":
            flat[f"{prefix}{name}"] = value
    return flat


def _result_tags(result: Result) -> dict[str, str]:
    said = {"outputs": result.outputs, "metrics": result.metrics, "digest": result.digest}
    tags = {"mammo.result": json.dumps(said)}
    if result.digest:
        tags["mammo.digest"] = result.digest
    return tags


@contextmanager
def _only_process_in(folder: Path, *, patient: bool) -> Iterator[None]:
    """Hold the lock of a run's folder; two processes never continue the same run."""
    locks = folder.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / folder.name).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not patient:
                    raise ConfigError(
                        "the same step with the same settings is already running (lock "
                        f"{file.name}); wait for it or change seed"
                    ) from None
            time.sleep(_LOCK_S)
        yield
