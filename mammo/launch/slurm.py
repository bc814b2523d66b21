"""Runs commands as jobs of a Slurm cluster, through submitit."""

import importlib
import logging
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError
from mammo.launch.command import Command, End, Launched
from mammo.launch.profile import Profile

LOG = logging.getLogger("mammo")
POLL_S = 0.5  # between looks at the files that a job leaves behind
_LEAVE_S = 10.0
_SQUEUE_S = (1.0, 30.0)  # between questions to the controller: at first, and in the long run


@dataclass(frozen=True)
class Slurm:
    """The launcher of a cluster; `folder` takes submitit's files, on a disk all nodes see."""

    profile: Profile
    folder: Path = Path()

    def check(self) -> None:
        """ConfigError where Slurm or submitit is missing, or Slurm refuses the profile's jobs."""
        missing = [name for name in ("sbatch", "squeue", "srun") if not shutil.which(name)]
        if missing:
            raise ConfigError(
                f"launcher slurm needs Slurm, and {', '.join(missing)} cannot be found; run on a "
                "node that submits jobs, or use launcher local"
            )
        _submitit()
        options = [f"--{name}={value}" for name, value in self.profile.slurm.asked().items()]
        words = ["sbatch", "--test-only", *options, "--wrap=true"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"launcher slurm: {_refusal(done.stderr)}; change the profile")

    def start(
        self,
        commands: Sequence[Command],
        *,
        name: str,
        at_once: int = 0,
        after: Launched | None = None,
    ) -> "SlurmLaunched":
        asked, submitit = self.profile.slurm, _submitit()
        for command in commands:
            command.forget()
        further = asked.asked()
        if after is not None:
            numbers = dict.fromkeys(job.partition("_")[0] for job in after.jobs)
            further["dependency"] = f"afterany:{':'.join(numbers)}"
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=asked.requeues)
        executor.update_parameters(
            job_name=f"mammo-{name}",
            wckey=None,
            time=further.pop("time"),
            signal_delay_s=asked.save_s,
            array_parallelism=at_once or asked.at_once or len(commands),
            setup=list(asked.setup) or None,
            stderr_to_stdout=True,
            additional_parameters=further,
        )
        try:
            with _out_of_any_job(submitit):
                submitted = executor.submit_array(list(commands))
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise ConfigError(f"launcher slurm: {_refusal(str(error))}") from None
        before = after.jobs if after is not None else []
        launched = SlurmLaunched(list(commands), [str(each.job_id) for each in submitted], before)
        LOG.info("%s: Slurm has taken %s", name, ", ".join(launched.jobs))
        return launched

    def again(self, commands: Sequence[Command], jobs: Sequence[str]) -> "SlurmLaunched | None":
        launched = SlurmLaunched(list(commands), list(jobs))
        return launched if jobs and _queued(jobs) else None


@dataclass
class SlurmLaunched:
    """Jobs of one submission."""

    commands: list[Command]
    jobs: list[str]  # number of each, as 12_0 in an array
    before: list[str] = field(default_factory=list)  # jobs that they wait for, to tell of them too

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> list[End]:
        """The end of each; when this process is told to stop, the jobs are cancelled."""
        pause, asked_at, seen = _SQUEUE_S[0], time.monotonic(), ""
        try:
            while not all(_final(command.end()) for command in self.commands):
                time.sleep(POLL_S)
                if time.monotonic() - asked_at < pause:
                    continue
                queued = _queued([*self.before, *self.jobs])
                if queued is not None and not set(_numbers(self.jobs)) & set(_numbers(queued)):
                    break
                told = _summary(queued or {})
                if told and told != seen:
                    LOG.info("Slurm: %s", told)
                seen = told or seen
                meanwhile()
                pause, asked_at = min(2 * pause, _SQUEUE_S[1]), time.monotonic()
        except BaseException:
            self.cancel()
            raise
        self._leave()
        return [command.end() or End(None, command.told()) for command in self.commands]

    def _leave(self) -> None:
        """Wait a little for what may be late: an end on a network disk, a job's own tidying up."""
        deadline = time.monotonic() + _LEAVE_S
        while time.monotonic() < deadline and (
            None in [command.end() for command in self.commands]
            or "running" in (_queued(self.jobs) or {}).values()
        ):
            time.sleep(POLL_S)

    def cancel(self) -> None:
        subprocess.run(["scancel", *_numbers(self.jobs)], capture_output=True, check=False)


def _queued(jobs: Sequence[str]) -> dict[str, str] | None:
    """State, with the reason to wait, of those jobs not over; None when nobody answers."""
    words = ["squeue", "-h", "-r", "-j", ",".join(_numbers(jobs)), "-o", "%i %T %r"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    waits = {"PENDING": " ({})"}
    return {job: state.lower() + waits.get(state, "").format(why) for job, state, why in lines}


def _numbers(jobs: Iterable[str]) -> list[str]:
    """Each job's own number; of an array, that of the whole."""
    return list(dict.fromkeys(job.partition("_")[0] for job in jobs))


def _final(end: End | None) -> bool:
    """Whether this was the command's own end; what a signal ended may yet be started again."""
    return end is not None and end.code in (0, 1, 2)


def _summary(queued: dict[str, str]) -> str:
    counts = Counter(queued.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _refusal(text: str) -> str:
    """The reason in what sbatch writes to stderr."""
    lines = [line.removeprefix("sbatch: error: ") for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "sbatch refuses without a word"


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError:
        raise ConfigError(
            "launcher slurm needs the package submitit, which is not installed; "
            "pip install submitit"
        ) from None


@contextmanager
def _out_of_any_job(submitit: Any) -> Iterator[None]:
    """Submit as from outside of a job, whose variables would make the new ones a part of it."""
    configuration = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if configuration is not None:
            os.environ["SLURM_CONF"] = configuration
        yield
