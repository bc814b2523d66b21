"""What was drawn is kept whole, whoever else keeps the same."""

import os
from pathlib import Path

import numpy as np
import pytest

from mammo.generators.shelf import Chunk, Effort, Shelf


def test_two_processes_that_draw_the_same_part_keep_it_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends while the first is writing."""
    images = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    chunk = Chunk(["benign", "malignant"], [3, 4], images, None, Effort(draws=2))
    synchronize = os.fsync

    def amid(file: int) -> None:
        monkeypatch.setattr(os, "fsync", synchronize)
        Shelf(tmp_path).put(7, chunk)
        synchronize(file)

    monkeypatch.setattr(os, "fsync", amid)
    Shelf(tmp_path).put(7, chunk)
    found = Shelf(tmp_path).get(7)
    assert found is not None
    assert (found.labels, found.seeds, found.effort) == (chunk.labels, chunk.seeds, chunk.effort)
    assert (found.images == images).all()
    assert len([*tmp_path.iterdir()]) == 1
