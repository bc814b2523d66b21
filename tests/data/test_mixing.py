"""Mixes are exact to the image, nested, seeded, and refused when they would leak."""

import inspect
from dataclasses import asdict
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.data.counts import apportion, share
from mammo.data.mix_settings import MIXES, MIXING, MixSettings
from mammo.data.mixing import Mix, counts
from mammo.data.mixing import mix as mix_sets
from mammo.errors import ConfigError, DataError
from mammo.steps import mix as mix_step
from mammo.steps import train_classifier

NAMES = ("benign", "malignant")
FRACTIONS = [number / 20 for number in range(21)]


def half_up(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def expected(mode: str, count: int, f: float, m: float) -> tuple[int, int]:
    """The table of the interface, in decimal arithmetic."""
    share, times = Decimal(str(f)), Decimal(str(m))
    real = half_up(share * count)
    if mode == "replace":
        return real, count - real
    if mode == "append":
        return real, half_up(times * (real if f else count))
    return count, half_up(Decimal(count) * (1 - share) / share)


def mix(real: pd.DataFrame, *synthetic: pd.DataFrame, seed: int = 0, **asked: Any) -> Mix:
    return mix_sets(real, synthetic, MixSettings(**asked), class_names=NAMES, seed=seed)


def patients(*sizes: int, label: str = "benign") -> pd.DataFrame:
    return small.frame(small.real_rows({label: sizes}))


def pool(benign: int = 0, malignant: int = 0) -> pd.DataFrame:
    return small.frame(small.synthetic_rows({"benign": benign, "malignant": malignant}))


def ids(frame: pd.DataFrame, rows: np.ndarray) -> list[str]:
    return frame["image_id"].iloc[rows].tolist()


def by_class(made: Mix) -> dict[str, tuple[int, int]]:
    return {each.label: (each.real, each.synthetic) for each in made.report}


def test_halves_are_rounded_up_in_decimal_not_in_binary():
    assert [share(0.35, 10), share(0.45, 10), share(0.05, 10), share(0.5, 3)] == [4, 5, 1, 2]
    assert [share(0.15, 10), share(0.145, 100), share(1.0, 7), share(0.0, 7)] == [2, 15, 7, 0]


@pytest.mark.parametrize(
    ("mode", "f", "m", "real", "synthetic"),
    [
        ("replace", 0.25, 1.0, 3, 7),  # 2.5 goes up
        ("replace", 0.0, 1.0, 0, 10),
        ("replace", 1.0, 1.0, 10, 0),
        ("append", 1.0, 0.0, 10, 0),  # the baseline
        ("append", 0.5, 0.5, 5, 3),
        ("append", 0.0, 2.0, 0, 20),
        ("target_share", 0.5, 1.0, 10, 10),
        ("target_share", 0.3, 1.0, 10, 23),
        ("target_share", 1.0, 1.0, 10, 0),
    ],
)
def test_ten_real_images_become(mode, f, m, real, synthetic):
    made = mix(
        patients(*[2] * 5),
        pool(benign=30),
        mix_mode=mode,
        real_percentage=f,
        synthetic_multiplier=m,
    )
    assert (len(made.real), len(made.synthetic)) == (real, synthetic)
    assert by_class(made) == {"benign": (real, synthetic), "malignant": (0, 0)}


# 40 images at most in a class, 19 for each of them at real_percentage 0.05
PLENTY = pool(benign=760, malignant=760)


def table(columns: dict[str, Any]) -> pd.DataFrame:
    """A manifest as far as a mix reads it; `small.frame` would take longer than the mix."""
    return pd.DataFrame({"group_id": "", "image_id": "", **columns})


@st.composite
def sources(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """2 to 10 patients of each class with 1 to 4 images, in any order, and synthetic plenty."""
    sizes = st.lists(st.integers(1, 4), min_size=2, max_size=10)
    benign, malignant = draw(sizes), draw(sizes)
    patient = np.repeat(np.arange(len(benign) + len(malignant)), benign + malignant)
    turn = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(patient))
    real = table(
        {
            "group_id": [f"p{each}" for each in patient[turn]],
            "image_id": [f"i{each}" for each in turn],
            "label": np.where(patient[turn] < len(benign), *NAMES),
        }
    )
    return real, PLENTY


@pytest.mark.doors
# 1,000 manifests, each mixed at two shares
@settings(max_examples=1000, deadline=None)
@given(
    both=sources(),
    mode=st.sampled_from(sorted(MIXES)),
    pair=st.tuples(*[st.sampled_from(FRACTIONS[1:])] * 2),
    m=st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0]),
    seed=st.integers(0, 9),
)
def test_every_mode_meets_the_table_in_every_class_and_smaller_shares_are_subsets(
    both, mode, pair, m, seed
):
    real, synthetic = both
    found = []
    for f in sorted(pair):
        asked = {"mix_mode": mode, "real_percentage": f, "synthetic_multiplier": m}
        wanted = {name: expected(mode, sum(real["label"] == name), f, m) for name in NAMES}
        if not any(map(sum, wanted.values())):
            with pytest.raises(DataError, match="would be empty"):
                mix(real, synthetic, seed=seed, **asked)
            continue
        made = mix(real, synthetic, seed=seed, **asked)
        assert by_class(made) == wanted
        for frame, rows, source in ((real, made.real, 0), (synthetic, made.synthetic, 1)):
            assert len(np.unique(rows)) == len(rows)
            labels = frame["label"].to_numpy()[rows]
            for name in NAMES:
                assert (labels == name).sum() == wanted[name][source]
        found.append(made)
    if len(found) == 2:
        assert set(found[0].real.tolist()) <= set(found[1].real.tolist())
        if mode == "replace":
            assert set(found[1].synthetic.tolist()) <= set(found[0].synthetic.tolist())


@settings(max_examples=60, deadline=None)
@given(both=sources(), f=st.sampled_from(FRACTIONS), seed=st.integers(0, 9))
def test_a_mix_follows_from_seed_and_order_of_rows_and_not_from_ids(both, f, seed):
    real, synthetic = both
    made = mix(real, synthetic, real_percentage=f, seed=seed)
    renamed = real.assign(
        group_id=[f"{seed}-{each[::-1]}" for each in real["group_id"]],
        image_id=[f"{seed}-{each[::-1]}" for each in real["image_id"]],
    )
    again = mix(renamed, synthetic, real_percentage=f, seed=seed)
    assert again.real.tolist() == made.real.tolist()
    assert again.synthetic.tolist() == made.synthetic.tolist()


def test_real_images_are_taken_by_whole_patients_but_for_the_last():
    real = patients(*[4] * 10)
    made = mix(real, pool(benign=40), real_percentage=0.45)  # 18 images
    taken = real.iloc[made.real]["group_id"].value_counts()
    assert sorted(taken) == [2, 4, 4, 4, 4]
    cut = taken.index[taken == 2][0]
    assert [i for i in ids(real, made.real) if i.startswith(cut)] == [f"{cut}-0", f"{cut}-1"]


def test_the_seed_chooses_patients_and_synthetic_images():
    real, synthetic = patients(*[1] * 40), pool(benign=40)
    one, two, again = (mix(real, synthetic, real_percentage=0.5, seed=s) for s in (0, 1, 0))
    assert one.real.tolist() == again.real.tolist() != two.real.tolist()
    assert one.synthetic.tolist() == again.synthetic.tolist() != two.synthetic.tolist()


def test_a_shortage_is_an_error_that_names_requested_and_available():
    real = small.frame(small.real_rows({"benign": [1] * 6, "malignant": [1] * 4}))
    with pytest.raises(DataError, match=r"class malignant: 4 requested, 2 available"):
        mix(real, pool(6, 2), real_percentage=0.0)


def test_clamping_takes_what_there_is_warns_and_reports_both_numbers(caplog):
    real = small.frame(small.real_rows({"benign": [1] * 6, "malignant": [1] * 4}))
    made = mix(
        real, pool(6, 2), real_percentage=0.5, mix_mode="append",
        synthetic_multiplier=2.0, on_shortage="clamp",
    )  # fmt: skip
    assert by_class(made) == {"benign": (3, 6), "malignant": (2, 2)}
    assert made.report[1].synthetic_requested == 4
    assert "class malignant: 4 requested, 2 available" in caplog.text
    assert counts(made) == {
        "real_images": 5,
        "synthetic_images": 8,
        "realised_real_percentage": 5 / 13,
        "count/benign/real": 3,
        "count/benign/synthetic": 6,
        "count/malignant/real": 2,
        "count/malignant/synthetic": 2,
    }


def test_equal_balance_fills_every_class_up_to_the_largest():
    real = small.frame(small.real_rows({"benign": [1] * 10, "malignant": [1] * 4}))
    made = mix(real, pool(20, 20), real_percentage=1.0, balance="equal")
    assert by_class(made) == {"benign": (10, 0), "malignant": (4, 6)}
    made = mix(
        real, pool(20, 20), real_percentage=0.5, mix_mode="append",
        balance="equal",
    )  # fmt: skip
    assert by_class(made) == {"benign": (5, 5), "malignant": (2, 8)}


def test_replace_at_one_needs_no_synthetic_images():
    real = patients(3, 2)
    made = mix(real, pool(), real_percentage=1.0)
    assert made.real.tolist() == [0, 1, 2, 3, 4]
    assert made.realised_real_percentage == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mix_mode": "target_share", "real_percentage": 0.0}, "infinitely many"),
        ({"mix_mode": "swap"}, r"unknown mix_mode 'swap'; choose one of append, replace"),
        ({"balance": "half"}, "choose keep or equal"),
        ({"balance": "equal", "synthetic": ""}, "synthetic is empty; name a synthetic dataset"),
        ({"on_shortage": "ignore"}, "choose error or clamp"),
        ({"synthetic": "", "real_percentage": 0.5}, "real_percentage 0.5 .* synthetic is empty"),
        (
            {"synthetic": "", "mix_mode": "append"},
            "synthetic_multiplier 1 .* synthetic is empty",
        ),
        (
            {"mix_mode": "append", "real_percentage": 0.0, "synthetic_multiplier": 0.0},
            "leave no image",
        ),
        (
            {"mix_mode": "target_share", "class_real_percentage": "benign=0"},
            "class_real_percentage of benign 0 .* infinitely many",
        ),
        (
            {"synthetic": "", "class_real_percentage": "benign=0.5"},
            "class_real_percentage of benign 0.5 .* synthetic is empty",
        ),
        ({"class_real_percentage": "benign"}, "'benign' should be <class>=<0 to 1>"),
        ({"class_real_percentage": "benign=1.5"}, "'benign=1.5' should be"),
        ({"class_real_percentage": "benign=nan"}, "'benign=nan' should be"),
        ({"class_real_percentage": "benign=1,benign=0"}, "'benign=0' should be .* each class once"),
        ({"majority_to_minority_ratio": 0.5}, "larger classes the smaller ones"),
        ({"samples_per_class": 5, "balance": "equal"}, "samples_per_class 5 makes all classes eq"),
        ({"samples_per_class": 5, "majority_to_minority_ratio": 2.0}, "makes all classes equal"),
        ({"synthetic": "", "synthetic_per_class": 5}, "synthetic_per_class 5 has no effect"),
        ({"synthetic": "", "synthetic_weights": "1"}, "synthetic_weights 1 has no effect"),
        ({"trim": "random"}, "trim random has no effect without synthetic_per_class"),
        ({"trim": "last"}, "choose first or random"),
        ({"synthetic_weights": "1,2"}, "has 2 numbers for 1 synthetic datasets"),
        ({"synthetic": "x,y", "synthetic_weights": "1,0"}, "give a number above 0 for each"),
        ({"synthetic": "x,y", "synthetic_weights": "1,inf"}, "give a number above 0 for each"),
        ({"synthetic": "x,y", "synthetic_weights": "1,1/0"}, "give a number above 0 for each"),
    ],
)
def test_settings_that_no_data_can_satisfy_are_refused(given, message):
    synthetic = given.pop("synthetic", "x")
    with pytest.raises(ConfigError, match=message):
        MixSettings(**given).check(synthetic)


def test_the_two_steps_that_mix_take_the_same_settings_with_the_same_defaults():
    for step in (mix_step, train_classifier):
        known = inspect.signature(step.run).parameters
        assert {name: known[name].default for name in MIXING} == asdict(MixSettings())


def test_a_count_is_split_by_weights_to_the_image():
    """10 of 7:3 are 7 and 3; 5 of 7:3 are 3.5 and 1.5, of equal remainders the first gains."""
    assert apportion(10, [7, 3]) == [7, 3]
    assert apportion(5, [Fraction(7, 10), Fraction(3, 10)]) == [4, 1]
    assert apportion(1, [1, 1, 1]) == [1, 0, 0]
    assert apportion(0, [1, 2]) == [0, 0]


def two_classes(benign: int, malignant: int) -> pd.DataFrame:
    return small.frame(small.real_rows({"benign": [1] * benign, "malignant": [1] * malignant}))


@pytest.mark.parametrize(
    ("asked", "benign", "malignant"),
    [
        ({"class_real_percentage": "malignant=0.5"}, (10, 0), (2, 2)),
        ({"class_real_percentage": "malignant=0.5,benign=0.7"}, (7, 3), (2, 2)),
        ({"class_real_percentage": "benign=0", "real_percentage": 0.5}, (0, 10), (2, 2)),
        (
            {"class_real_percentage": "malignant=0.25", "mix_mode": "target_share"},
            (10, 0),
            (4, 12),
        ),
        (
            {"class_real_percentage": "malignant=0.5", "mix_mode": "append"},
            (10, 10),
            (2, 2),
        ),
        ({"majority_to_minority_ratio": 2.0}, (8, 0), (4, 0)),
        ({"majority_to_minority_ratio": 1.0}, (4, 0), (4, 0)),
        ({"majority_to_minority_ratio": 1.125}, (5, 0), (4, 0)),  # 4.5 goes up
        ({"majority_to_minority_ratio": 9.0}, (10, 0), (4, 0)),
        ({"majority_to_minority_ratio": 2.0, "real_percentage": 0.5}, (4, 4), (2, 2)),
        ({"majority_to_minority_ratio": 1.5, "balance": "equal"}, (6, 0), (4, 2)),
        ({"samples_per_class": 4}, (4, 0), (4, 0)),
        ({"samples_per_class": 7, "real_percentage": 0.5}, (4, 3), (4, 3)),  # 3.5 goes up
        ({"samples_per_class": 16, "real_percentage": 0.25}, (4, 12), (4, 12)),
        (
            {"samples_per_class": 6, "mix_mode": "append", "synthetic_multiplier": 2.0},
            (2, 4),
            (2, 4),
        ),
        ({"samples_per_class": 6, "mix_mode": "append", "real_percentage": 0.0}, (0, 6), (0, 6)),
        (
            {"samples_per_class": 8, "class_real_percentage": "benign=1", "real_percentage": 0.5},
            (8, 0),
            (4, 4),
        ),
    ],
)  # fmt: skip
def test_ten_benign_and_four_malignant_images_become(asked, benign, malignant):
    made = mix(two_classes(10, 4), pool(30, 30), **asked)
    assert by_class(made) == {"benign": benign, "malignant": malignant}


def test_limits_work_without_synthetic_images():
    made = mix(two_classes(10, 4), majority_to_minority_ratio=1.0)
    assert by_class(made) == {"benign": (4, 0), "malignant": (4, 0)}
    assert [each.real_in_data for each in made.report] == [10, 4]
    assert [each.real_available for each in made.report] == [4, 4]
    made = mix(two_classes(10, 4), samples_per_class=3)
    assert by_class(made) == {"benign": (3, 0), "malignant": (3, 0)}


def test_a_capped_class_keeps_the_first_patients_of_the_order():
    real = patients(*[2] * 10)
    both = pd.concat([real, patients(*[1] * 5, label="malignant")], ignore_index=True)
    capped = mix(both, pool(30, 30), majority_to_minority_ratio=2.0)
    halved = mix(both, pool(30, 30), real_percentage=0.5)
    first = both.iloc[halved.real].query("label == 'benign'")["image_id"]
    kept = both.iloc[capped.real].query("label == 'benign'")
    assert set(kept["image_id"]) == set(first)  # the same 10 of 20
    assert kept.groupby("group_id").size().eq(2).all()


def test_too_few_real_images_for_samples_per_class_are_named():
    with pytest.raises(
        DataError, match=r"too few real images \(class malignant: 5 requested, 4 av"
    ):
        mix(two_classes(10, 4), samples_per_class=5)
    made = mix(two_classes(10, 4), samples_per_class=5, on_shortage="clamp")
    assert by_class(made) == {"benign": (5, 0), "malignant": (4, 0)}


def test_a_class_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="names class 'cyst'; the classes are benign, malignant"):
        mix(two_classes(2, 2), pool(2, 2), class_real_percentage="cyst=1")


def sets(*sizes: int) -> list[pd.DataFrame]:
    """Synthetic sets run0, run1, ... with as many images of each class."""
    return [
        small.frame(small.synthetic_rows(dict.fromkeys(NAMES, size), f"run{number}"))
        for number, size in enumerate(sizes)
    ]


def drawn(made: Mix, frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True).iloc[made.synthetic]


def test_weights_share_the_synthetic_images_of_each_class_among_the_sets():
    frames = sets(40, 40, 40)
    made = mix(two_classes(20, 11), *frames, real_percentage=0.0, synthetic_weights="0.5, 0.3,0.2")
    taken = drawn(made, frames).groupby(["label", "generator_run_id"]).size()
    assert taken["benign"].to_dict() == {"run0": 10, "run1": 6, "run2": 4}
    # 5.5, 3.3 and 2.2 of 11: the largest remainder is the first's
    assert taken["malignant"].to_dict() == {"run0": 6, "run1": 3, "run2": 2}
    assert made.requested["benign"] == [10, 6, 4]


def test_without_weights_the_sets_are_one_pool():
    frames = sets(60, 30)
    made = mix(two_classes(45, 45), *frames, real_percentage=0.0)
    taken = drawn(made, frames)["generator_run_id"].value_counts()
    assert sum(taken) == 90
    # a third of each class's draws come from the smaller set: 30 of 90, give or take
    assert 18 < taken["run1"] < 42
    assert not made.requested


def test_a_set_too_small_for_its_weight_is_named():
    asked = {"real_percentage": 0.0, "synthetic_weights": "1,1"}
    with pytest.raises(DataError, match=r"class benign of synthetic dataset 2: 5 requested, 3 av"):
        mix(two_classes(10, 4), *sets(20, 3), **asked)
    frames = sets(20, 3)
    made = mix(two_classes(10, 4), *frames, **asked, on_shortage="clamp")
    assert by_class(made) == {"benign": (0, 8), "malignant": (0, 4)}


def test_each_set_is_trimmed_to_its_first_or_to_random_images_of_each_class():
    frames = sets(30, 30)
    asked = {"real_percentage": 0.0, "synthetic_per_class": 10}
    made = mix(two_classes(20, 20), *frames, **asked)
    assert set(drawn(made, frames)["sample_seed"]) == set(range(10))
    assert len(made.synthetic) == 40
    free = mix(two_classes(20, 20), *frames, **asked, trim="random")
    kept = drawn(free, frames)
    assert kept.groupby(["label", "generator_run_id"]).size().tolist() == [10] * 4
    assert not set(kept["sample_seed"]) <= set(range(10))
    with pytest.raises(
        DataError, match=r"too few synthetic images \(class benign: 21 requested, 20"
    ):
        mix(two_classes(21, 20), *frames, **asked)
    with pytest.raises(
        DataError, match=r"dataset 1: 31 requested by synthetic_per_class, 30 avail"
    ):
        mix(two_classes(1, 1), *frames, **{**asked, "synthetic_per_class": 31})


def test_the_same_synthetic_set_twice_is_refused():
    twice = pd.concat([pool(3), pool(3)], ignore_index=True)
    with pytest.raises(DataError, match="is there twice"):
        mix(patients(2), twice, real_percentage=0.5)


def test_unknown_classes_are_refused():
    odd = small.frame(small.real_rows({"cyst": [1]}))
    with pytest.raises(DataError, match=r"'cyst', which is not one of benign, malignant"):
        mix(odd, pool(), real_percentage=1.0)


def test_a_mix_without_an_image_is_refused():
    with pytest.raises(DataError, match="the mix of 2 real images would be empty"):
        mix(patients(2), pool(), real_percentage=0.1, mix_mode="append")
