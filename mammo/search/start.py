"""What a search leaves in its study to the workers, beside the plan: whose run it is, and where."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import optuna

_START, _DEADLINE = "mammo.start", "mammo.deadline"  # attributes of a study


@dataclass(frozen=True)
class Start:
    """One start of a search; the next one of the same study takes its place."""

    run_id: str  # of the parent in MLflow
    folder: str  # of the parent's state
    work: str  # work folder, on a disk that all workers see
    apart: Mapping[str, Mapping[str, Any]]  # settings of each step that no plan holds: what it
    # works on and with what
    timeout_s: float = 0.0  # from the first worker's beginning; 0 for no limit
    halve_batch: bool = False  # where memory runs out
    offline: bool = False
    reuse: bool = True
    at: float = field(default_factory=time.time)

    def write(self, study: "optuna.Study") -> None:
        study.set_user_attr(_START, json.dumps(asdict(self)))

    @classmethod
    def read(cls, study: "optuna.Study") -> "Start":
        text = study.user_attrs.get(_START)
        if not text:
            raise ConfigError(
                f"study {study.study_name} was never started; begin it with mammo tune"
            )
        return cls(**json.loads(text))

    def deadline(self, study: "optuna.Study") -> float:
        """Until when trials may begin (seconds since 1970); the first worker who asks sets it."""
        if not self.timeout_s:
            return float("inf")
        said = study.user_attrs.get(_DEADLINE, {})
        if said.get("of") != self.at:
            said = {"of": self.at, "until": time.time() + self.timeout_s}
            study.set_user_attr(_DEADLINE, said)
        return float(said["until"])
