"""Tasks come back from processes once each; a dead process or parent leaves nothing hanging."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import doors
import pytest

from mammo.data.workers import spread
from mammo.errors import ConfigError


def square(number: int) -> tuple[int, int]:
    time.sleep(0.01 * (number % 3))
    return number**2, os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise FileNotFoundError(2, "No such file or directory", "three.dcm")
    return number


def die_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def write_pid_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done_once(workers):
    done = list(spread(square, range(20), workers=workers))
    assert sorted(value for value, _ in done) == [number**2 for number in range(20)]
    processes = {process for _, process in done}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes
    assert len(processes) <= workers


def test_no_more_tasks_are_read_than_there_are_processes_free():
    read = []

    def tasks():
        for number in range(10):
            read.append(number)
            yield number

    with closing(spread(square, tasks(), workers=2)) as done:
        next(done)
        assert read == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised_here(workers):
    with pytest.raises(FileNotFoundError, match=r"three\.dcm") as caught:
        list(spread(fail_at_three, range(5), workers=workers))
    if workers > 1:
        assert "in fail_at_three" in "".join(caught.value.__notes__)


def test_a_process_that_the_system_ends_is_one_line():
    with pytest.raises(ConfigError, match=r"workers 2: .*\(exit code -9\).* memory; .* fewer"):
        list(spread(die_at_two, range(5), workers=2))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def waits_until(condition, timeout_s: float = 20) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def test_the_processes_of_a_killed_parent_end_in_the_middle_of_their_work(tmp_path):
    code = (
        "import test_workers; from mammo.data.workers import spread\n"
        f"if __name__ == '__main__': list(spread(test_workers.write_pid_and_wait, "
        f"[{str(tmp_path)!r}] * 2, workers=2))"
    )
    (tmp_path / "start.py").write_text(code)
    paths = os.pathsep.join(
        [str(doors.ROOT), str(Path(__file__).parent), str(doors.ROOT / "tests")]
    )
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "start.py"], env={**os.environ, "PYTHONPATH": paths}
    )
    assert waits_until(lambda: sum(path.name.isdigit() for path in tmp_path.iterdir()) == 2)
    children = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    assert all(map(alive, children))
    parent.kill()
    parent.wait()
    assert waits_until(lambda: not any(map(alive, children)), timeout_s=5)


def test_work_that_is_given_up_ends_its_processes(tmp_path):
    with closing(spread(square, range(100), workers=2)) as done:
        processes = {next(done)[1] for _ in range(6)}
        assert any(map(alive, processes))
    assert not any(map(alive, processes))
