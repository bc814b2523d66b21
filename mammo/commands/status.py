"""`mammo status STUDY`: how a search goes on, once or again and again."""

import re
import sys
import time
from collections.abc import Sequence

from mammo.commands import call
from mammo.commands.worker import address_of
from mammo.errors import ConfigError
from mammo.search.status import Status, status_of
from mammo.search.storage import in_plain_words, open_storage
from mammo.search.study import join_study

_CLEAR = "\033[H\033[2J"  # of a terminal


def command(arguments: Sequence[str]) -> int:
    return call("status", status, arguments)


def status(
    study: str,
    *,
    storage: str = "",
    work_dir: str = "",
    watch: bool = False,
    every: float = 5.0,
) -> int:
    """Show the trials, workers, rate, best and time left of the search STUDY, a name or a run id.

    --storage is the one the search was given, by default MAMMO_STORAGE, else the file in the work
    folder. --watch shows it again `every` so many seconds until no trial is left.
    """
    if every <= 0:
        raise ConfigError(f"every {every} is no pause; give seconds above 0")
    kept = open_storage(address_of(storage, work_dir))
    name = _name_of(study) if re.fullmatch("[0-9a-f]{32}", study) else study
    with in_plain_words(name):
        found, plan = join_study(name, kept)
        while True:
            seen = status_of(found, plan)
            clear = _CLEAR if watch and sys.stdout.isatty() else ""
            print(clear + "\n".join(lines(seen)), flush=True)
            if not watch or seen.is_over:
                return 0
            time.sleep(every)


def _name_of(run_id: str) -> str:
    """The study of a run of tune; a study may be called like a run, as one without a name is."""
    from mammo.errors import TrackingError
    from mammo.tracking import connected

    tracking = connected()
    if tracking is None:
        return run_id
    with tracking:
        try:
            return str(tracking.get(run_id).data.tags.get("mammo.study", run_id))
        except TrackingError:
            return run_id


def lines(seen: Status) -> list[str]:
    """What is shown."""
    counts = seen.counts
    total = sum(counts.values())
    over = total - counts["RUNNING"] - counts["WAITING"]
    told = [
        f"study {seen.name}: {over} of {total} trials are over",
        f"  {counts['COMPLETE']} complete, {counts['PRUNED']} pruned, {counts['FAIL']} failed, "
        f"{counts['RUNNING']} running, {counts['WAITING']} waiting",
    ]
    if seen.best is not None:
        chosen = ", ".join(f"{name} {_short(value)}" for name, value in seen.chosen.items())
        told.append(f"  best {seen.metric} {seen.best:.4f}: trial {seen.best_number} ({chosen})")
    if seen.per_hour and not seen.is_over:
        told.append(f"  {seen.per_hour:.1f} trials/hour, about {_duration(seen.left_s)} left")
    told += [f"  failed: {text}" for text in seen.errors]
    there = [each for each in seen.workers if not each.over]
    if there:
        told.append(f"  {'worker':28}{'gpu':>5}{'job':>9}{'trial':>7}{'done':>6}  last word")
    for each in there:
        trial = str(each.trial) if each.trial >= 0 else "-"
        where = f"{each.host}:{each.pid}"
        lost = ", lost" if each.state == "lost" else ""
        told.append(
            f"  {where:28}{each.gpus or '-':>5}{each.job or '-':>9}{trial:>7}{each.done:>6}  "
            f"{_duration(each.silent_s)} ago{lost}"
        )
    left = len(seen.workers) - len(there)
    return told + ([f"  {left} workers have left"] if left else [])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    """As 42 s, 12 min or 3 h 5 min."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
