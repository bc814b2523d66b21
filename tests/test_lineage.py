"""Lineage: the tree from a classifier back to its images, and forward to all that used them."""

import pytest

from mammo.errors import ConfigError
from mammo.lineage import Graph, Node


def graph() -> Graph:
    return Graph(
        [
            Node("pre", "preprocess", "", "FINISHED", digest="data"),
            Node("gen", "train_generator", "", "FINISHED", inputs={"data": ["pre"]}),
            Node("sam", "sample", "", "FINISHED", digest="syn", inputs={"generator": ["gen"]}),
            Node("mix", "mix", "", "FINISHED", inputs={"real": ["pre"], "synthetic": ["syn"]}),
            Node("clf", "train_classifier", "", "FINISHED", inputs={"data": ["mix"]}),
            Node("fold", "train_classifier", "", "FINISHED", parent_id="clf"),
            Node("other", "preprocess", "", "FINISHED"),
        ]
    )


def test_a_classifier_leads_back_to_all_it_was_made_from() -> None:
    assert graph().ancestors("clf") == {"mix", "pre", "sam", "gen"}


def test_a_dataset_named_by_digest_leads_to_the_run_that_made_it() -> None:
    assert "sam" in graph().ancestors("mix")


def test_a_generator_leads_forward_to_all_that_used_it() -> None:
    assert graph().descendants("gen") == {"sam", "mix", "clf", "fold"}


def test_a_folds_run_has_its_parents_inputs() -> None:
    assert "pre" in graph().ancestors("fold")


def test_the_tree_shows_every_branch_both_ways() -> None:
    assert list(graph().tree("mix")) == [
        "mix mix FINISHED",
        "made from",
        "├─ real: preprocess pre FINISHED",
        "└─ synthetic: sample sam FINISHED",
        "   └─ generator: train_generator gen FINISHED",
        "      └─ data: preprocess pre FINISHED",
        "used by",
        "├─ data: train_classifier clf FINISHED",
        "└─ data: train_classifier fold FINISHED",
    ]


def test_an_unknown_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="'nobody' is not among the 7 runs"):
        list(graph().tree("nobody"))
