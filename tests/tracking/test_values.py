"""Settings as texts: numbers stay numbers, words stay words, and a password is never told."""

from typing import Any

import pytest
from mlflow.utils.validation import _validate_metric_name

from mammo.tracking.pictures import stem
from mammo.tracking.values import as_text, metric_name, same_value, without_passwords

URL = "postgresql+psycopg2://anna:s3cret@db:5432/optuna"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "none"),
        (3, "3"),
        (1e-05, "1e-05"),
        (0.1, "0.1"),
        (float("inf"), "inf"),
        ([16, 32], "16,32"),
        ((0.5, True, None), "0.5,true,none"),
        ("", ""),
        ("none", "none"),
        (URL, "postgresql+psycopg2://anna:***@db:5432/optuna"),
        ("postgresql://anna:p@ss/w0rd@db/optuna", "postgresql://anna:***@db/optuna"),
        ("redis://:s3cret@db/0 and no@mail", "redis://:***@db/0 and no@mail"),
        (
            "postgresql://db/x?user=a&password=s3cret&b=1",
            "postgresql://db/x?user=a&password=***&b=1",
        ),
        ("http://127.0.0.1:5000/#/models/a@champion", "http://127.0.0.1:5000/#/models/a@champion"),
        ("models:/name@champion", "models:/name@champion"),
        ("hf://anna@host:80/x", "hf://anna@host:80/x"),
    ],
)
def test_a_setting_is_logged_as_its_kind_asks(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("val/auc", "val/auc"),
        ("count/benign (old)", "count/benign _old_"),
        ("count/4+", "count/4_"),
        ("count/gutartig früh", "count/gutartig früh"),
    ],
)
def test_a_metric_is_named_as_mlflow_allows(name: str, allowed: str) -> None:
    assert metric_name(name) == allowed
    _validate_metric_name(allowed)


def test_images_of_classes_in_any_script_stay_apart() -> None:
    keys = ["samples/CC a.b-c_1", "samples/benign (old)", "samples/良性", "samples/悪性"]
    found = [stem(key, 3).partition("+step+3+")[0] for key in keys]
    assert found == [
        "samples~CC a.b-c_1",
        "samples~benign _28old_29",
        "samples~_826f_6027",
        "samples~_60aa_6027",
    ]


@pytest.mark.parametrize("value", [1e-05, 0.1 + 0.2, 1e22, 123456789.0])
def test_a_number_loses_no_digit(value: float) -> None:
    assert float(as_text(value)) == value


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("0.001", "1e-3", True),
        ("'a b'", "a b", True),
        ("True", "true", True),
        ("None", "none", True),
        ("A", "a", False),
        ("1", "2", False),
        ("1", "true", False),
    ],
)
def test_texts_that_name_the_same_value(left: str, right: str, same: bool) -> None:
    assert same_value(left, right) is same


def test_config_yaml_holds_no_password_at_any_depth() -> None:
    given = {"storage": URL, "train_classifier": {"data": URL, "epochs": 3}}
    assert without_passwords(given) == {
        "storage": as_text(URL),
        "train_classifier": {"data": as_text(URL), "epochs": 3},
    }
