"""How a trial ended, as its process tells it, and what the study is told."""

import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mammo.search.objective import HOURS
from mammo.search.plan import Plan
from mammo.search.study import Proposal, complete, fail, prune
from mammo.search.trial import Message

if TYPE_CHECKING:
    import optuna

LOG = logging.getLogger("mammo")


@dataclass
class Ending:
    """How a trial ended, as far as it has been told."""

    measured: list[dict[str, float]] = field(default_factory=list)
    done: bool = False
    outputs: Mapping[str, str] = field(default_factory=dict)
    pruned: str = ""
    failed: str = ""
    memory: str = ""  # the step whose memory ran out
    stopped: int = 0
    code: int = 0
    runs: list[str] = field(default_factory=list)  # in MLflow, the trial's own first

    @property
    def crash(self) -> str:
        """How its process ended without saying what came of it; empty where it did."""
        told = self.done or self.pruned or self.failed or self.stopped
        return "" if told else _crash(self.code)

    def take(self, message: Message) -> bool:
        """Keep what a message says of the end; False for a report that wants an answer."""
        if "training" in message:
            self.measured.append(message["training"])
        for name in ("pruned", "failed", "memory", "stopped"):
            setattr(self, name, message.get(name, getattr(self, name)))
        if "done" in message:
            self.done, self.outputs = True, message["done"]
        return not message.keys() & {"training", "epoch"}

    def tell(self, study: "optuna.Study", plan: Plan, proposal: Proposal, hours: float) -> None:
        """Tell the study."""
        number = proposal.number
        if self.pruned:
            LOG.info("tune: trial %d pruned: %s", number, self.pruned)
            prune(study, proposal.trial)
        elif self.done:
            for name, uri in self.outputs.items():
                proposal.trial.set_user_attr(name, uri)
            shared = hours / len(self.measured)
            values = complete(
                study, plan, proposal, [{**each, HOURS: shared} for each in self.measured]
            )
            LOG.info("tune: trial %d: %s %.4f", number, plan.objective.metric, values[0])
        else:
            reason = self.failed or self.crash
            LOG.warning("tune: trial %d failed: %s", number, reason)
            fail(study, proposal.trial, reason)


def _crash(code: int) -> str:
    if code >= 0:
        return f"its process ended without a word (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; was the machine out of memory?" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"
