"""Prompts say what is told of an image, and nothing else."""

import pytest

from mammo.errors import ConfigError
from mammo.generators.conditions import COLUMNS, Conditions
from mammo.generators.stable.prompts import TEMPLATE, Prompts, check_prompt, fields

TOLD = Conditions(("label", "view", "density"), (("benign", "not_dense"), ("CC", "MLO"), ("A",)))
LONG = "a {class} scan, {view} view, {density} breast, gray"


def test_s3_5_a_prompt_names_class_and_metadata_in_words():
    prompts = Prompts(LONG, TOLD)
    assert prompts.text([0, 1, 0]) == (
        "a benign scan, mediolateral oblique view, almost entirely fatty breast, gray"
    )
    assert prompts.text([1, 0, 0]) == (
        "a not dense scan, craniocaudal view, almost entirely fatty breast, gray"
    )


def test_a_phrase_about_what_is_not_told_is_left_out():
    assert (
        Prompts(LONG, TOLD).text([0, 2, 0]) == "a benign scan, almost entirely fatty breast, gray"
    )
    assert Prompts(LONG, TOLD).text([2, 0, 1]) == "craniocaudal view, gray"


def test_nothing_told_is_the_empty_prompt():
    assert Prompts(LONG, TOLD).text([2, 2, 1]) == ""


def test_a_generator_that_is_never_told_anything_says_what_holds_for_all():
    assert Prompts(LONG, Conditions.none()).text([]) == "gray"


def test_the_default_prompt_leaves_no_brace_and_no_gap():
    prompts = Prompts(TEMPLATE, TOLD)
    assert prompts.text([0, 0, 0]) == (
        "benign mammogram, craniocaudal view, almost entirely fatty breast density, grayscale "
        "digital x-ray of breast tissue, sharp detail, black background"
    )


def test_the_default_prompt_names_all_that_can_be_told():
    assert fields(TEMPLATE) == {"class", *COLUMNS}


def test_prompts_survive_json():
    again = Prompts.from_json(Prompts(LONG, TOLD).to_json())
    assert again == Prompts(LONG, TOLD)


def test_each_value_stands_in_one_of_the_texts_that_are_measured():
    texts = Prompts(LONG, TOLD).texts()
    for words in ("benign", "not dense", "craniocaudal", "mediolateral oblique", "fatty"):
        assert any(words in text for text in texts), words


@pytest.mark.parametrize(
    ("template", "conditions", "mode", "message"),
    [
        ("{class} {age}", "", "class", r"{age} should be one of class, view, "),
        ("{class} {view}", "", "class", r"names {view}, which nothing tells it; add it to"),
        ("{class}", "", "unconditional", r"names {class}, which nothing tells it; use mode=class"),
        ("{class}", "view", "class", r"does not name {view}, so that the text would be the same"),
        ("a mammogram", "", "class", r"does not name {class}"),
        ("{class", "", "class", r"name columns as {class} or {view}"),
        ("{class!r}", "", "class", r"{class} should be a bare name"),
        ("{class.__init__}", "", "class", r"{class.__init__} should be a bare name"),
        ("{}", "", "class", r"{} should be a bare name"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused_in_one_line(template, conditions, mode, message):
    with pytest.raises(ConfigError) as refused:
        check_prompt(template, conditions=conditions, mode=mode)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", ["class", "unconditional"])
def test_the_default_prompt_goes_with_every_mode(mode):
    check_prompt("", conditions="view,density" if mode == "class" else "", mode=mode)
