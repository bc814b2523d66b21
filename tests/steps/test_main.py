"""The step `main`: what a later step would refuse is refused before the first one starts."""

from pathlib import Path
from typing import Any

import pytest

from mammo import cli
from mammo.errors import MammoError
from mammo.steps import main


def settings(*given: str) -> dict[str, Any]:
    return cli.parse("main", given)


@pytest.mark.parametrize("profile", list(main.PROFILES))
def test_the_settings_of_a_profile_are_accepted(profile: str) -> None:
    counted = [] if profile == "demo" else ["--sample.count", "10", "--mix.real_percentage", "0.5"]
    main.check(settings("--profile", profile, *counted))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--dataset", "mias"), "source is empty"),
        (("--train_classifier.folds", "all"), "train_classifier.folds 'all': main compares on a"),
        (("--preprocess.k_folds", "5"), "preprocess.k_folds 5: main compares on a hold-out"),
        (("--train_classifier.finetune", "head"), "train_classifier: finetune 'head' would keep"),
        (("--sample.counts", "benign=5"), "sample: count 160 and counts 'benign=5'"),
        (("--tune.space", "/nowhere.yaml"), "tune: space /nowhere.yaml cannot be read"),
        (("--promote.policy", "/nowhere.yaml"), "promote: policy /nowhere.yaml cannot be read"),
    ],
)
def test_a_step_that_cannot_run_is_told_before_the_first(given: tuple[str, ...], line: str) -> None:
    with pytest.raises(MammoError) as refused:
        main.check(settings(*given))
    assert str(refused.value).startswith(line)


def test_the_digest_of_its_files_follows_those_of_the_steps(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("loss: [ce, bce]\n")
    first = main.source_digest(settings("--tune.space", str(space)))
    space.write_text("loss: [ce, focal]\n")
    assert main.source_digest(settings("--tune.space", str(space))) != first
