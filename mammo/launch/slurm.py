"""Runs commands as jobs of a Slurm cluster, through submitit."""

import importlib
import logging
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
_CANCEL_S = 60.0  # that cancelled jobs have to save their state and be gone
_WHOSE = ("account", "partition", "qos", "reservation")  # options of sbatch
_SQUEUE_S = (1.0, 30.0)  # between questions to the controller: at first, and in the long run


@dataclass(frozen=True)
class Slurm:
    """The launcher of a cluster; `folder` takes submitit's files, on a disk all nodes see."""

    profile: Profile
    folder: Path = Path()

    def check(self, nodes: int = 1) -> None:
        """ConfigError where Slurm or submitit is missing, or Slurm refuses the profile's jobs.

        Those that take most are on `nodes` machines.
        """
        missing = [name for name in ("sbatch", "squeue", "srun") if not shutil.which(name)]
        if missing:
            raise ConfigError(
                f"launcher slurm needs Slurm, and {', '.join(missing)} cannot be found; run on a "
                "node that submits jobs, or use launcher local"
            )
        _submitit()
        asked = self.profile.slurm.asked()
        options = [
            f"--{name}" if value is True else f"--{name}={value}" for name, value in asked.items()
        ]
        words = ["sbatch", "--test-only", f"--nodes={nodes}", *options, "--wrap=true"]
        with _out_of_any_job(asked):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            mine = "nodes or the profile" if nodes > 1 else "the profile"
            raise ConfigError(f"launcher slurm: {_refusal(done.stderr)}; change {mine}")

    def start(
        self,
        commands: Sequence[Command],
        *,
        name: str,
        at_once: int = 0,
        after: Launched | None = None,
    ) -> "SlurmLaunched":
        asked, submitit = self.profile.slurm, _submitit()
        nodes = max(command.nodes for command in commands)
        for command in commands:
            command.forget()
            command.patience_s = asked.save_s * 2 / 3  # the rest is for putting it back
        # put back when its time is over, or its node fails, also where the cluster's default is not
        further = {**asked.asked(), "requeue": True}
        if after is not None:
            further["dependency"] = f"afterany:{':'.join(_numbers(after.jobs))}"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a setup may name secrets
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=asked.requeues)
        executor.update_parameters(
            job_name=f"mammo-{name}",
            wckey=None,
            nodes=nodes,
            # a command runs on the first machine, and starts on the others what it needs there
            srun_args=["--nodes=1", "--ntasks=1"] if nodes > 1 else None,
            time=further.pop("time"),
            signal_delay_s=asked.save_s,
            array_parallelism=at_once or asked.at_once or len(commands),
            setup=list(asked.setup) or None,
            stderr_to_stdout=True,
            additional_parameters=further,
        )
        try:
            with _out_of_any_job(further):
                submitted = executor.submit_array(list(commands))
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise ConfigError(f"launcher slurm: {_refusal(str(error))}") from None
        before = after.jobs if after is not None else []
        launched = SlurmLaunched(list(commands), [str(each.job_id) for each in submitted], before)
        LOG.info("%s: Slurm has taken %s", name, ", ".join(_numbers(launched.jobs)))
        return launched

    def again(
        self, commands: Sequence[Command], jobs: Sequence[str], *, before: Sequence[str]
    ) -> "SlurmLaunched | None":
        launched = SlurmLaunched(list(commands), list(jobs), list(before))
        queued = _queued([*jobs, *before])
        if queued is None:
            raise ConfigError(
                f"launcher slurm: squeue does not answer, and jobs {', '.join(_numbers(jobs))} may "
                "be on their way; try again when it does"
            )
        if set(_numbers(jobs)) & set(_numbers(queued)):
            return launched
        if queued:  # what they would make, nobody gathers
            launched.cancel()
        return None


@dataclass
class SlurmLaunched:
    """Jobs of one submission."""

    commands: list[Command]
    jobs: list[str]  # number of each, as 12_0 in an array
    before: list[str] = field(default_factory=list)  # jobs that they wait for, and end with

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
        """Have them save their state and end; a warning names those that do not."""
        jobs = [*self.jobs, *self.before]  # in this order: those would begin when these end
        words = ["scancel", *_numbers(jobs)]
        subprocess.run(words, capture_output=True, check=False)
        deadline = time.monotonic() + _CANCEL_S
        while (left := _queued(jobs)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if left != {}:
            LOG.warning("Slurm: some jobs may go on; see squeue, and call: %s", " ".join(words))


def _queued(jobs: Sequence[str]) -> dict[str, str] | None:
    """State, with the reason to wait, of those jobs not over; None when nobody answers."""
    if not jobs:
        return {}
    words = ["squeue", "-h", "-r", "--me", "-j", ",".join(_numbers(jobs)), "-o", "%i %T %r"]
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
    """The reason in what sbatch writes to stderr; a site's own words come before Slurm's."""
    lines = [line.removeprefix("sbatch: error: ").strip() for line in text.splitlines()]
    return "; ".join(filter(None, lines)) or "sbatch refuses without a word"


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError:
        raise ConfigError(
            "launcher slurm needs the package submitit, which is not installed; "
            "pip install submitit"
        ) from None


@contextmanager
def _out_of_any_job(asked: Mapping[str, Any]) -> Iterator[None]:
    """Submit as from outside of a job, whose variables would make the new ones a part of it.

    Those stay that say on whose account a user computes, where `asked` does not: in a job's script
    they would go before it.
    """
    mine = [f"SBATCH_{name.upper()}" for name in _WHOSE if name not in asked]
    kept = {name: os.environ[name] for name in ("SLURM_CONF", *mine) if name in os.environ}
    with _submitit().helpers.clean_env():
        os.environ.update(kept)
        yield
