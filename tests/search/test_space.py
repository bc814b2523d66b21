"""The search space: what a file may say, what it means, and what is refused."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import MODULES, SETTINGS, space

from mammo.errors import ConfigError
from mammo.search.reading import check_space, read_space
from mammo.search.space import Dimension, Space, parents_first

TRAINING = {"train_classifier": SETTINGS["train_classifier"]}


def test_the_default_space_mixes_where_there_is_something_to_mix() -> None:
    found = read_space("", synthetic=True, modules=MODULES)
    assert [each.name for each in found] == ["real_percentage", "loss", "sampler"]
    assert found["real_percentage"].described() == {"low": 0.0, "high": 1.0}
    without = read_space("", synthetic=False, modules=MODULES)
    assert [each.name for each in without] == ["loss", "sampler"]


def test_any_setting_of_any_step_of_a_trial_may_vary(tmp_path: Path) -> None:
    said = {
        "train_generator.lr": {"low": "1e-4", "high": 1e-2, "log": True},
        "sample.guidance": [1, 2.5],
        "train_classifier.dropout": {"low": 0, "high": 0.5, "step": 0.25},
        "epochs": {"low": 5, "high": 15, "step": 5},
        "find_lr": [True, False],
    }
    found = space(said, tmp_path)
    assert found.described() == {
        "train_generator.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "sample.guidance": {"choices": [1.0, 2.5]},
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
        "epochs": {"low": 5, "high": 15, "step": 5},
        "find_lr": {"choices": [True, False]},
    }
    assert found["dropout"].grid() == (0.0, 0.25, 0.5)
    assert found["epochs"].grid() == (5, 10, 15)
    assert found.steps == ("train_generator", "sample", "train_classifier")
    chosen = {"train_generator.lr": 1e-3, "sample.guidance": 1.0, "epochs": 5}
    assert found.by_step(chosen) == {
        "train_generator": {"lr": 1e-3},
        "sample": {"guidance": 1.0},
        "train_classifier": {"epochs": 5},
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"los": ["ce"]}, "'los' is no setting of train_classifier"),
        ({"evaluate.bootstrap": [1]}, "a trial runs no step 'evaluate'"),
        ({"loss": ["ce", "hinge"]}, "loss cannot be 'hinge'; give bce or ce or"),
        ({"loss": "focal"}, "loss is 'focal'; give a list or low and high"),
        ({"loss": {"low": 0, "high": 1}}, "loss is no number and has no range"),
        ({"loss": []}, "loss has no choices"),
        ({"loss": ["ce", "ce"]}, "loss names 'ce' twice"),
        ({"lr": {"low": 1, "high": 0.5}}, r"lr is an empty range from 1.0 to 0.5; give low < high"),
        ({"lr": {"low": 1, "high": 1}}, "lr is an empty range"),
        ({"lr": {"low": "fast", "high": 1}}, "lr cannot be 'fast'; give a number above 0"),
        ({"lr": {"low": 0.1, "high": float("nan")}}, "lr cannot be nan"),
        ({"dropout": {"low": 0, "high": 1.5}}, "dropout cannot be 1.5; give a number from 0 to 1"),
        ({"dropout": {"low": 0, "high": 1, "log": True}}, "log, which goes with low above 0"),
        ({"dropout": {"low": 0, "high": 1, "step": 0.3}}, "do not end at high 1.0"),
        ({"dropout": {"low": 0, "high": 1, "step": 2}}, "step 2; give one above 0, at most 1"),
        ({"dropout": {"low": 0, "high": 1, "lag": 1}}, "give choices, or low and high with"),
        ({"epochs": {"low": 1, "high": 2.5}}, "epochs cannot be 2.5; give a whole number of at le"),
        ({"epochs": [True]}, "epochs cannot be True"),
        ({"epochs": {"low": 1, "high": 10**400}}, "epochs cannot be 1000"),
        ({"dropout": {"low": 0, "high": 1, "step": None}}, "step None; give true and a number"),
        ({"dropout": {"low": 0, "high": 1, "step": [1]}}, r"step \[1\]; give true and a number"),
        (
            {"loss": ["ce"], "lr": {"choices": [0.1], "when": {"loss": [["ce"]]}}},
            r"lr waits for loss \['ce'\]; loss may be ce",
        ),
        ({"find_lr": [1]}, "find_lr cannot be 1; give true or false"),
        ({"model_name": [18]}, "model_name cannot be 18; give a text"),
        ({"lr": [0.1], "train_classifier.lr": [0.2]}, "names lr twice"),
        ({"seed": [1, 2]}, "seed cannot vary: tune sets it"),
        ({"workers": [0, 2]}, "workers cannot vary: trials would not differ"),
        ({"train_generator.logger": ["mlflow"]}, "logger cannot vary: trials would not differ"),
        ({"val_fraction": [0.1, 0.2]}, "different validation patients cannot be compared"),
        ({"lr": {"choices": [0.1], "when": {"loss": "ce"}}}, "condition on loss, which does not v"),
        (
            {"loss": ["ce", "bce"], "lr": {"choices": [0.1], "when": {"loss": "focal"}}},
            "lr waits for loss focal; loss may be ce, bce",
        ),
        (
            {"dropout": {"low": 0, "high": 1}, "lr": {"choices": [0.1], "when": {"dropout": 0.5}}},
            "lr has a condition on dropout, a range without a step",
        ),
        (
            {
                "loss": {"choices": ["ce"], "when": {"sampler": "random"}},
                "sampler": {"choices": ["random"], "when": {"loss": "ce"}},
            },
            "the conditions of loss, sampler go round in a circle",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_line(said: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        space(said, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("- loss", "is not a mapping"), ("loss: [", "cannot be read"), ("", "is not a mapping")],
)
def test_a_file_that_is_no_space_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_space(str(tmp_path / "space.yaml"), synthetic=True, modules=MODULES)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"focal_gamma": [1.0, 2.0]},
            "refuses a trial with focal_gamma 1.0: focal_gamma 1.0 has no",
        ),
        (
            {"finetune": ["full", "head"]},
            "refuses a trial with finetune head: finetune 'head' would",
        ),
        ({"dropout": {"low": 0, "high": 1}}, "dropout 1.0: dropout 1 leaves no feature"),
    ],
)
def test_a_choice_that_the_step_refuses_is_told_before(
    said: Any, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_space(space(said, tmp_path), MODULES, TRAINING)


def test_what_is_wrong_without_the_space_is_not_laid_at_its_door(tmp_path: Path) -> None:
    said = space({"sample.steps": [10, 20]}, tmp_path)
    with pytest.raises(ConfigError, match=r"^sample: count 0 and counts '': give one of them"):
        check_space(said, MODULES, SETTINGS)


def test_with_its_condition_the_step_takes_it(tmp_path: Path) -> None:
    said = {
        "focal_gamma": {"choices": [1.0, 3.0], "when": {"loss": ["focal", "focal_counts"]}},
        "loss": ["ce", "focal", "focal_counts"],
    }
    found = space(said, tmp_path)
    assert [each.name for each in found] == ["loss", "focal_gamma"]
    check_space(found, MODULES, TRAINING)
    assert list(found.configurations(lambda each: each.choices)) == [
        {"loss": "ce"},
        {"loss": "focal", "focal_gamma": 1.0},
        {"loss": "focal", "focal_gamma": 3.0},
        {"loss": "focal_counts", "focal_gamma": 1.0},
        {"loss": "focal_counts", "focal_gamma": 3.0},
    ]


@st.composite
def trees(draw: st.DrawFn) -> Space:
    """Spaces whose dimensions wait for values of earlier ones, given in any order."""
    names = [f"d{number}" for number in range(draw(st.integers(1, 6)))]
    made: list[Dimension] = []
    for name in names:
        choices = tuple(range(draw(st.integers(1, 3))))
        when = {}
        for parent in (
            draw(st.lists(st.sampled_from(made), max_size=2, unique_by=lambda each: each.name))
            if made
            else []
        ):
            when[parent.name] = tuple(
                draw(st.lists(st.sampled_from(parent.choices), min_size=1, unique=True))
            )
        made.append(Dimension(name, choices=choices, when=when))
    return Space(parents_first(draw(st.permutations(made))))


@settings(max_examples=60, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_a_dimension_has_a_value_exactly_where_its_conditions_hold(tree: Space, draw: Any) -> None:
    """Against the definition, worked out by hand from the values of all dimensions."""
    values = {each.name: draw.choice(each.choices) for each in tree}
    chosen = tree.canonical(values)

    def holds(name: str) -> bool:
        when = tree[name].when
        return all(holds(parent) and values[parent] in when[parent] for parent in when)

    assert set(chosen) == {name for name in values if holds(name)}
    assert all(chosen[name] == values[name] for name in chosen)
    trial = optuna.trial.FixedTrial(values)
    assert tree.suggest(trial) == chosen  # type: ignore[arg-type]
    assert tree.canonical(chosen) == chosen
    assert chosen in list(tree.configurations(lambda each: each.choices))
    assert Space.of(yaml.safe_load(yaml.safe_dump(tree.described(), sort_keys=False))) == tree


def test_the_space_that_the_docs_show_can_be_searched(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "space.yaml").write_text(text)
    found = read_space(str(tmp_path / "space.yaml"), synthetic=True, modules=MODULES)
    mixing = {"train_classifier": {**SETTINGS["train_classifier"], "synthetic": "given"}}
    check_space(found, MODULES, {"sample": {"count": 1000}, **mixing})
    assert found["lr"].low == 1e-4
    assert found.canonical({"loss": "focal", "focal_gamma": 1.0, "sampler": "random"}) == {
        "loss": "focal", "focal_gamma": 1.0
    }  # fmt: skip
