"""Training that a kill cannot change: started again, a run ends with the very same weights."""

from mammo.training.averaging import Averaging as Averaging
from mammo.training.checkpoints import read_checkpoint as read_checkpoint
from mammo.training.devices import PRECISIONS as PRECISIONS
from mammo.training.devices import choose_device as choose_device
from mammo.training.fitting import Fitted as Fitted
from mammo.training.fitting import fit as fit
