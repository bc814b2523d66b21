"""What a profile asks of Slurm, in the script that submitit hands to sbatch."""

import shlex
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from submitit.core.utils import DelayedSubmission

from mammo.errors import ConfigError
from mammo.launch import Profile, check_launcher, commands_of, open_launcher, read_profile
from mammo.launch.profile import PROFILES

ALL = {
    "partition": "gpu",
    "account": "breast",
    "qos": "long",
    "constraint": "a100|h100",
    "exclude": "n7",
    "gpus": 2,
    "cpus": 8,
    "memory_gb": 1.5,
    "minutes": 240,
    "at_once": 3,
    "requeues": 7,
    "save_s": 180,
    "setup": ["module load cuda", "ulimit -n 4096"],
    "further": {"mail-user": "me", "exclusive": True, "contiguous": False},
}


@pytest.fixture(autouse=True)
def _sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch that takes what it is given, and an srun to be found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", "echo Submitted batch job 7"), ("srun", ""), ("squeue", "")):
        stand_in(tmp_path, name, script)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def stand_in(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def script(tmp_path: Path, cluster: str, *, nodes: int = 1) -> list[str]:
    """Lines of the script of five commands."""
    jobs = tmp_path / "jobs"
    commands = commands_of([["true"]] * 5, tmp_path / "logs", nodes=nodes)
    launched = open_launcher("slurm", read_profile(cluster), tmp_path).start(commands, name="step")
    assert launched.jobs == [f"7_{number}" for number in range(5)]
    path = sorted(jobs.glob("*.sh"))[0]  # each task has a copy
    return path.read_text().splitlines()


def written(tmp_path: Path, slurm: dict[str, Any]) -> str:
    path = tmp_path / "place.yaml"
    path.write_text(yaml.safe_dump({"slurm": slurm}))
    return str(path)


def options(lines: list[str]) -> dict[str, str]:
    given = [shlex.split(line)[1] for line in lines if line.startswith("#SBATCH --")]
    return {name[2:]: value for name, _, value in (each.partition("=") for each in given)}


def test_each_setting_of_a_profile_stands_in_the_script(tmp_path: Path) -> None:
    lines = script(tmp_path, written(tmp_path, ALL))
    found = options(lines)
    output = found.pop("output")
    assert output == str(tmp_path / "jobs" / "%A_%a_0_log.out")
    assert found == {
        "array": "0-4%3",
        "job-name": "mammo-step",
        "nodes": "1",
        "open-mode": "append",
        "signal": "USR2@180",
        "partition": "gpu",
        "account": "breast",
        "qos": "long",
        "constraint": "a100|h100",
        "exclude": "n7",
        "gpus-per-node": "2",
        "cpus-per-task": "8",
        "mem": "1536M",
        "time": "240",
        "mail-user": "me",
        "exclusive": "",
        "requeue": "",  # or a cluster with JobRequeue=0 would put nothing back
    }
    srun = next(number for number, line in enumerate(lines) if line.startswith("srun "))
    assert lines.index("module load cuda") < lines.index("ulimit -n 4096") < srun
    job = DelayedSubmission.load(sorted((tmp_path / "jobs").glob("*_0_submitted.pkl"))[0])
    assert (job._timeout_countdown, job._timeout_min) == (7, 240)
    assert job.function.patience_s == 120  # of 180 seconds; then it has to be put back


def test_variables_of_the_setup_are_left_to_the_job_and_its_script_to_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "secret")
    monkeypatch.setenv("SLURM_JOB_ID", "5")  # of the job in which the command runs
    setup = ["export TOKEN=$KEY", "cd /scratch/$SLURM_JOB_ID"]
    lines = script(tmp_path, written(tmp_path, {"setup": setup}))
    assert [line for line in lines if line in setup] == setup
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700


def test_the_account_of_the_environment_holds_where_the_profile_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a job's script it would go before the profile's; its time limit is not the user's."""
    for name in ("ACCOUNT", "PARTITION", "TIMELIMIT"):
        monkeypatch.setenv(f"SBATCH_{name}", f"mine-{name}")
    told = tmp_path / "told"
    variables = "$SBATCH_ACCOUNT/$SBATCH_PARTITION/$SBATCH_TIMELIMIT"
    stand_in(tmp_path, "sbatch", f"echo {variables} >> {told}; echo Submitted batch job 7")
    cluster = written(tmp_path, {"partition": "gpu"})
    check_launcher({"launcher": "slurm", "cluster": cluster})
    script(tmp_path, cluster)
    assert told.read_text().split() == ["mine-ACCOUNT//"] * 2


def test_the_reason_of_a_site_is_told_with_slurms(tmp_path: Path) -> None:
    said = "sbatch: error: Give an account of yours\nsbatch: error: failed: Unspecified error"
    stand_in(tmp_path, "sbatch", f"echo '{said}' >&2; exit 1")
    with pytest.raises(ConfigError, match="slurm: Give an account of yours; failed: Unspec") as it:
        check_launcher({"launcher": "slurm"})
    assert "\n" not in str(it.value)


def test_gpus_of_a_kind_are_asked_for_by_it(tmp_path: Path) -> None:
    found = options(script(tmp_path, written(tmp_path, {"gres": "gpu:a100:2"})))
    assert found["gres"] == "gpu:a100:2" and "gpus-per-node" not in found


def test_a_command_of_several_machines_starts_on_the_first(tmp_path: Path) -> None:
    lines = script(tmp_path, written(tmp_path, {}), nodes=3)
    assert options(lines)["nodes"] == "3"
    (srun,) = [line for line in lines if line.startswith("srun ")]
    assert "--nodes=1 --ntasks=1" in srun


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("slurm_*.yaml")))
def test_a_profile_of_ours_names_no_place_and_ends_before_its_time(
    name: str, tmp_path: Path
) -> None:
    found, slurm = options(script(tmp_path, name)), read_profile(name).slurm
    assert int(found["time"]) == slurm.minutes
    assert found["signal"] == f"USR2@{slurm.save_s}"
    assert not {"partition", "account", "qos", "constraint"} & set(found)


@pytest.mark.parametrize(
    ("further", "text"),
    [
        ({"time": "4:00:00"}, "slurm.further.time: use slurm.minutes"),
        ({"mem": "4G"}, "slurm.further.mem: use slurm.memory_gb"),
        ({"gpus": 2}, "slurm.further.gpus: use slurm.gpus"),
        ({"array": "0-3"}, "slurm.further.array: the launcher sets it itself; leave it out"),
        ({"mail-type": ["END"]}, r"further.mail-type is \['END'\]; it must be a text, a number"),
    ],
)
def test_an_option_that_the_launcher_sets_is_refused(
    tmp_path: Path, further: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        read_profile(written(tmp_path, {"further": further}))
    assert "\n" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or jobs would go on unseen, and others be started beside them."""
    commands = commands_of([["true"]] * 2, tmp_path / "logs")
    launched = open_launcher("slurm", Profile(), tmp_path).start(commands, name="step")
    for name in ("squeue", "scancel"):
        stand_in(tmp_path, name, "echo cannot contact the controller >&2; exit 1")
    launched.cancel()
    assert "some jobs may go on; see squeue, and call: scancel 7" in caplog.text
    with pytest.raises(ConfigError, match="squeue does not answer, and jobs 7 may be on their way"):
        open_launcher("slurm", Profile(), tmp_path).again(commands, ["7_0", "7_1"], before=[])
