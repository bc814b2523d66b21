"""Who gets which split, where a release says little about its patients."""

import pandas as pd

from mammo.data.partition import keep_twins_together


def test_copies_of_an_image_are_one_group() -> None:
    frame = pd.DataFrame({"group_id": ["c", "a", "b", "d"], "sha256": ["1", "1", "2", "1"]})
    assert list(keep_twins_together(frame)) == ["a", "a", "b", "a"]
