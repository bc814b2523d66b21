"""Mixes are exact to the image, nested, seeded, and refused when they would leak."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mammo.data.classes import TASKS, ClassMap
from mammo.data.counts import share
from mammo.data.mixing import MIXES, Mix, check_settings, counts, mix, mix_training
from mammo.data.splits import training_rows
from mammo.errors import ConfigError, DataError

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
        class_names=NAMES,
        mix_mode=mode,
        real_percentage=f,
        synthetic_multiplier=m,
    )
    assert (len(made.real), len(made.synthetic)) == (real, synthetic)
    assert by_class(made) == {"benign": (real, synthetic), "malignant": (0, 0)}


# 60 images at most in a class, 19 for each of them at real_percentage 0.05
PLENTY = pool(benign=1200, malignant=1200)


@st.composite
def sources(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    sizes = st.lists(st.integers(1, 5), min_size=2, max_size=12)
    real = small.frame(small.real_rows({name: draw(sizes) for name in NAMES}))
    return real, PLENTY


@settings(max_examples=40, deadline=None)
@given(
    both=sources(),
    mode=st.sampled_from(sorted(MIXES)),
    f=st.sampled_from(FRACTIONS[1:]),
    m=st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 4.0]),
    seed=st.integers(0, 9),
)
def test_every_mode_meets_the_table_in_every_class(both, mode, f, m, seed):
    real, synthetic = both
    asked = {"mix_mode": mode, "real_percentage": f, "synthetic_multiplier": m, "seed": seed}
    table = {name: expected(mode, sum(real["label"] == name), f, m) for name in NAMES}
    assume(any(map(sum, table.values())))
    made = mix(real, synthetic, class_names=NAMES, **asked)
    assert by_class(made) == table
    assert len(set(made.real.tolist())) == len(made.real)
    assert len(set(made.synthetic.tolist())) == len(made.synthetic)
    for each in made.report:
        assert sum(real["label"].iloc[made.real] == each.label) == each.real
        assert sum(synthetic["label"].iloc[made.synthetic] == each.label) == each.synthetic


@settings(max_examples=25, deadline=None)
@given(both=sources(), pair=st.tuples(*[st.sampled_from(FRACTIONS)] * 2), seed=st.integers(0, 9))
def test_a_smaller_share_takes_subsets_and_the_order_of_rows_changes_nothing(both, pair, seed):
    real, synthetic = both
    small_f, large_f = sorted(pair)
    less, more = (
        mix(real, synthetic, class_names=NAMES, real_percentage=f, seed=seed)
        for f in (small_f, large_f)
    )
    assert set(less.real.tolist()) <= set(more.real.tolist())
    assert set(more.synthetic.tolist()) <= set(less.synthetic.tolist())
    turned = mix(
        real.iloc[::-1], synthetic.iloc[::-1], class_names=NAMES, real_percentage=small_f, seed=seed
    )
    assert set(ids(real.iloc[::-1], turned.real)) == set(ids(real, less.real))
    assert ids(synthetic.iloc[::-1], turned.synthetic) == ids(synthetic, less.synthetic)


def test_real_images_are_taken_by_whole_patients_but_for_the_last():
    real = patients(*[4] * 10)
    made = mix(real, pool(benign=40), class_names=NAMES, real_percentage=0.45)  # 18 images
    taken = real.iloc[made.real]["group_id"].value_counts()
    assert sorted(taken) == [2, 4, 4, 4, 4]
    cut = taken.index[taken == 2][0]
    assert [i for i in ids(real, made.real) if i.startswith(cut)] == [f"{cut}-0", f"{cut}-1"]


def test_the_seed_chooses_patients_and_synthetic_images():
    real, synthetic = patients(*[1] * 40), pool(benign=40)
    one, two, again = (
        mix(real, synthetic, class_names=NAMES, real_percentage=0.5, seed=s) for s in (0, 1, 0)
    )
    assert one.real.tolist() == again.real.tolist() != two.real.tolist()
    assert one.synthetic.tolist() == again.synthetic.tolist() != two.synthetic.tolist()


def test_a_shortage_is_an_error_that_names_requested_and_available():
    real = small.frame(small.real_rows({"benign": [1] * 6, "malignant": [1] * 4}))
    with pytest.raises(DataError, match=r"class malignant: 4 requested, 2 available"):
        mix(real, pool(6, 2), class_names=NAMES, real_percentage=0.0)


def test_clamping_takes_what_there_is_warns_and_reports_both_numbers(caplog):
    real = small.frame(small.real_rows({"benign": [1] * 6, "malignant": [1] * 4}))
    made = mix(
        real, pool(6, 2), class_names=NAMES, real_percentage=0.5, mix_mode="append",
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
    made = mix(real, pool(20, 20), class_names=NAMES, real_percentage=1.0, balance="equal")
    assert by_class(made) == {"benign": (10, 0), "malignant": (4, 6)}
    made = mix(
        real, pool(20, 20), class_names=NAMES, real_percentage=0.5, mix_mode="append",
        balance="equal",
    )  # fmt: skip
    assert by_class(made) == {"benign": (5, 5), "malignant": (2, 8)}


def test_replace_at_one_needs_no_synthetic_images():
    real = patients(3, 2)
    made = mix(real, pool(), class_names=NAMES, real_percentage=1.0)
    assert made.real.tolist() == [0, 1, 2, 3, 4]
    assert made.realised_real_percentage == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mix_mode": "target_share", "real_percentage": 0.0}, "infinitely many"),
        ({"mix_mode": "swap"}, r"unknown mix_mode 'swap'; choose one of append, replace"),
        ({"balance": "half"}, "choose one of keep, equal"),
        ({"balance": "equal", "synthetic": ""}, "synthetic is empty; name a synthetic dataset"),
        ({"on_shortage": "ignore"}, "choose one of error, clamp"),
        ({"synthetic": "", "real_percentage": 0.5}, "real_percentage 0.5 .* synthetic is empty"),
        (
            {"synthetic": "", "mix_mode": "append"},
            "synthetic_multiplier 1 .* synthetic is empty",
        ),
        (
            {"mix_mode": "append", "real_percentage": 0.0, "synthetic_multiplier": 0.0},
            "leave no image",
        ),
    ],
)
def test_settings_that_no_data_can_satisfy_are_refused(given, message):
    sound = {"synthetic": "x", "real_percentage": 1.0, "mix_mode": "replace"}
    with pytest.raises(ConfigError, match=message):
        check_settings(**{"synthetic_multiplier": 1.0, **sound, **given})


def test_the_same_synthetic_set_twice_is_refused():
    twice = pd.concat([pool(3), pool(3)], ignore_index=True)
    with pytest.raises(DataError, match="is there twice"):
        mix(patients(2), twice, class_names=NAMES, real_percentage=0.5)


def hold_out_rows() -> list[dict]:
    """Per class: 4 training patients of 2 images, one validation and one test patient."""
    rows = small.real_rows({name: [2] * 6 for name in NAMES})
    split = {4: "val", 5: "test"}
    return [{**r, "split": split.get(int(r["group_id"][-1]), "train")} for r in rows]


@pytest.fixture
def real(tmp_path: Path):
    return small.dataset(tmp_path, hold_out_rows(), name="real")


def mixed(data, synthetic, fold="none", **asked):
    rows = training_rows(data, fold=fold, val_fraction=0.25)
    return mix_training(data, synthetic, rows, **{"real_percentage": 0.5, **asked})


def test_a_mix_on_the_fly_reads_the_pixels_of_each_source(real, tmp_path):
    one = small.dataset(tmp_path, small.synthetic_rows({"benign": 9}, "run1"), name="one")
    two = small.dataset(tmp_path, small.synthetic_rows({"malignant": 9}, "run2"), name="two")
    made = mixed(real, [one, two])
    assert len(made.partition.train) == 16
    frame = made.data.manifest.iloc[made.partition.train]
    assert frame.groupby(["label", "is_synthetic"]).size().tolist() == [4, 4, 4, 4]
    stored = made.data.raw(made.partition.train)
    for image_id, found in zip(frame["image_id"], stored, strict=True):
        np.testing.assert_array_equal(found, small.pixels(image_id))
    names = np.asarray(NAMES)[made.data.label_ids()[made.partition.train]]
    assert names.tolist() == frame["label"].tolist()


def test_a_mix_on_the_fly_leaves_held_out_rows_where_they_were(real, tmp_path):
    synthetic = small.dataset(tmp_path, small.synthetic_rows({"benign": 9, "malignant": 9}))
    made = mixed(real, [synthetic])
    before = training_rows(real, fold="none")
    np.testing.assert_array_equal(made.partition.val, before.val)
    pd.testing.assert_frame_equal(
        made.data.manifest.iloc[before.val].drop(columns="shard"),
        real.manifest.iloc[before.val].drop(columns="shard"),
    )


def synthetic_set(folder: Path, seen: list[dict], **asked):
    rows = small.synthetic_rows({"benign": 9, "malignant": 9})
    return small.dataset(folder, rows, name="made", seen=seen, **asked)


def test_a_generator_that_saw_training_patients_alone_is_accepted(real, tmp_path):
    made = mixed(real, [synthetic_set(tmp_path, small.seen_by("run1", ["benign-0", "benign-1"]))])
    assert made.generators == {"by_patient": ["run1"], "by_pixels": [], "unknown": []}
    assert set(made.data.generator_training["group_id"]) == {"benign-0", "benign-1"}


@pytest.mark.parametrize("patient", ["benign-4", "malignant-5"])  # validation, test
def test_a_generator_that_saw_a_held_out_patient_is_refused(real, tmp_path, patient):
    seen = small.seen_by("run1", ["benign-0", patient])
    with pytest.raises(DataError, match=rf"generator run1 .* 1 of the 4 held-out .*{patient}"):
        mixed(real, [synthetic_set(tmp_path, seen)])


def test_a_generator_of_another_fold_is_refused(tmp_path):
    rows = small.real_rows({name: [1] * 8 for name in NAMES})
    rows = [{**row, "fold": int(row["group_id"][-1]) % 4} for row in rows]
    data = small.dataset(tmp_path, rows)
    trained = data.manifest.iloc[training_rows(data, fold=1, val_fraction=0.25).train]
    made = synthetic_set(tmp_path, small.seen_by("run1", trained["group_id"].tolist()))
    assert len(mixed(data, [made], fold=1).partition.train) == len(trained)
    for other in (0, 2, 3):
        with pytest.raises(DataError, match=r"generator run1 was trained on [1-9]"):
            mixed(data, [made], fold=other)


def test_across_salts_pixels_are_compared_and_it_is_said(real, tmp_path, caplog):
    caplog.set_level("INFO", "mammo")
    seen = small.seen_by("run1", ["benign-4"], salt="other")
    made = mixed(real, [synthetic_set(tmp_path, seen)])
    assert made.generators["by_pixels"] == ["run1"]
    assert "pixel hashes were compared instead" in caplog.text
    held_out = real.manifest[real.manifest["split"] == "val"].iloc[0]
    seen[0]["sha256"] = held_out["sha256"]
    with pytest.raises(DataError, match=rf"patient {held_out['group_id']}, split 'val'"):
        mixed(real, [synthetic_set(tmp_path, seen)])


def test_a_generator_whose_training_is_not_recorded_is_reported(real, tmp_path, caplog):
    made = mixed(real, [synthetic_set(tmp_path, [])])
    assert made.generators["unknown"] == ["run1"]
    assert "run1 were trained on is not recorded" in caplog.text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shape": (1, 8, 9)}, r"are 1x8x9, those of real 1x8x8"),
        (
            {"classes": ClassMap("malignancy2", ("malignant", "benign"), "malignant", "pathology")},
            r"classes of synthetic dataset made are \['malignant', 'benign'\]",
        ),
        (
            {"classes": ClassMap("malignancy2", NAMES, "malignant", "birads")},
            r"label_kind of synthetic dataset made is 'birads', that of real 'pathology'",
        ),
        (
            {"classes": ClassMap("malignancy2", NAMES, "benign", "pathology")},
            r"positive of synthetic dataset made is 'benign'",
        ),
    ],
)
def test_a_synthetic_set_that_does_not_go_with_the_real_one_is_refused(
    real, tmp_path, asked, message
):
    with pytest.raises(DataError, match=message):
        mixed(real, [synthetic_set(tmp_path, [], **asked)])


def test_real_images_offered_as_synthetic_are_refused(real, tmp_path):
    with pytest.raises(DataError, match=r"synthetic dataset real holds 24 real images"):
        mixed(real, [real])


def test_unknown_classes_are_refused():
    odd = small.frame(small.real_rows({"cyst": [1]}))
    with pytest.raises(DataError, match=r"'cyst', which is not one of benign, malignant"):
        mix(odd, pool(), class_names=TASKS["malignancy2"].names, real_percentage=1.0)


def test_a_mix_without_an_image_is_refused():
    with pytest.raises(DataError, match="the mix of 2 real images would be empty"):
        mix(patients(2), pool(), class_names=NAMES, real_percentage=0.1, mix_mode="append")
