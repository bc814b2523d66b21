"""Several images as one sample: dealt into sets, labelled, pooled, and told of image by image."""

import numpy as np
import pandas as pd
import pytest
import small
import torch
from torch import nn

from mammo.classifiers.activations import ACTIVATIONS
from mammo.classifiers.backbone import Network
from mammo.classifiers.features import serve
from mammo.classifiers.plans import FINETUNES
from mammo.classifiers.pooling import GatedAttention, laid, over_images
from mammo.classifiers.telling import see, tell
from mammo.classifiers.views import VIEWS
from mammo.data.loading import ordered_batches, training_batches
from mammo.data.sets import Sets, joint_labels, set_keys
from mammo.errors import ConfigError, DataError
from mammo.evaluation.ranking import aggregate, auc
from mammo.steps import train_classifier

POOLS = [name for name in sorted(VIEWS) if name != "none"]
KEYS = ["b", "a", "b", "c", "a", "b"]  # sets b, a, c of 3, 2 and 1 images


def pool_of(name: str, features: int = 4) -> nn.Module:
    torch.manual_seed(3)
    found: nn.Module = VIEWS[name](features).double()
    return found


def pooled(pool: nn.Module, features: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """`features` (n, F) of sets of `sizes`, pooled (S, F)."""
    held = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    found: torch.Tensor = pool(laid(features, held), held)
    return found


# ---- sets


def test_sets_come_by_their_first_image_and_fill_a_table() -> None:
    sets = Sets.of(KEYS)
    assert (len(sets), sets.sizes.tolist()) == (3, [3, 2, 1])
    images, held = sets.pick([2, 0])
    assert images.tolist() == [3, 0, 2, 5]
    assert held.tolist() == [[True, False, False], [True, True, True]]
    images, held = sets.pick([])
    assert (images.tolist(), held.shape) == ([], (0, 1))


def test_the_label_of_a_set_is_that_of_its_patient() -> None:
    """Positive where any image is, else the most frequent, of equals the highest id."""
    counts = np.array([[3, 1, 0], [2, 0, 1], [1, 0, 1], [0, 0, 2]])
    assert joint_labels(counts, 1).tolist() == [1, 0, 2, 2]
    ids = np.array([0, 0, 1, 1, 0, 0])
    assert Sets.of(KEYS).labels(ids, small.TWO).tolist() == [1, 0, 1]
    names = np.array(small.TWO.names)[ids]
    frame = pd.DataFrame({"group_id": KEYS, "image_id": list("uvwxyz"), "label": names})
    frame[["score/benign", "score/malignant"]] = 0.5
    patients = aggregate(frame, "malignant").set_index("group_id")
    assert patients.loc[["b", "a", "c"], "label_id"].tolist() == [1, 0, 1]


def test_a_set_is_a_patient_or_a_breast_and_a_synthetic_image_is_alone() -> None:
    rows = small.real_rows({"benign": [3, 1]}) + small.synthetic_rows({"benign": 2})
    for row, side in zip(rows, "LRLL", strict=False):
        row["laterality"] = side
    for row in rows[-2:]:
        row["group_id"] = "run1"
    frame = small.frame(rows)
    assert Sets.of(set_keys(frame, "patient")).sizes.tolist() == [3, 1, 1, 1]
    assert Sets.of(set_keys(frame, "breast")).sizes.tolist() == [2, 1, 1, 1, 1]
    frame.loc[1, "laterality"] = ""
    with pytest.raises(DataError, match="1 of 4 images tell no laterality; use views_of patient"):
        set_keys(frame, "breast")


def test_a_batch_holds_whole_sets_of_images_or_of_their_features(tmp_path) -> None:
    data = small.dataset(tmp_path, small.real_rows({"benign": [2, 1], "malignant": [3]}))
    rows = np.array([5, 0, 3, 2, 1, 4])
    sets = Sets.of(set_keys(data.manifest.iloc[rows], "patient"))  # rows 5 3 4, then 0 1, then 2
    order = np.array([1, 0])
    [batch] = training_batches(data, rows, batch_size=2, order=lambda epoch: order, sets=sets)
    assert batch["row"].tolist() == [0, 1, 5, 3, 4]
    assert batch["label"].tolist() == [0, 1]
    assert batch["held"].tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_array_equal(batch["image"], data.images(batch["row"].numpy()))
    parts = list(ordered_batches(data, rows, batch_size=2, sets=sets))
    assert [each["row"].tolist() for each in parts] == [[5, 3, 4, 0, 1], [2]]
    columns = {"features": torch.arange(6)[:, None] * 10.0, "row": torch.from_numpy(rows)}
    labels = sets.labels(data.label_ids()[rows], data.classes)
    [served] = serve(columns, batch_size=2, order=lambda epoch: order, sets=sets, labels=labels)
    assert all(torch.equal(served[name], batch[name]) for name in ("row", "label", "held"))
    assert served["features"].flatten().tolist() == [10, 40, 0, 20, 50]  # places in rows


# ---- pools


def test_the_pools_of_two_sets_by_hand() -> None:
    features = torch.tensor([[1.0, -4.0], [3.0, -2.0], [-5.0, -6.0]]).double()
    mean, largest = (pooled(VIEWS[name](2), features, [2, 1]) for name in ("mean", "max"))
    assert mean.tolist() == [[2.0, -3.0], [-5.0, -6.0]]
    assert largest.tolist() == [[3.0, -2.0], [-5.0, -6.0]]  # a place without an image is not 0


def test_attention_of_equal_logits_is_the_mean() -> None:
    pool, features = pool_of("attention"), torch.randn(5, 4).double()
    nn.init.zeros_(pool.weight.weight)
    torch.testing.assert_close(
        pooled(pool, features, [2, 3]), pooled(VIEWS["mean"](4), features, [2, 3])
    )


def test_gated_attention_is_that_of_ilse_2018() -> None:
    pool, features = pool_of("attention"), torch.randn(3, 4).double()
    v, u, w = (each.detach().numpy() for each in pool.parameters())
    h = features.numpy()
    logits = [(w[0] * np.tanh(v @ each) / (1 + np.exp(-u @ each))).sum() for each in h]  # eq. 9
    weights = np.exp(logits) / np.exp(logits).sum()
    expected = sum(weight * each for weight, each in zip(weights, h, strict=True))  # eq. 8
    np.testing.assert_allclose(pooled(pool, features, [3])[0].detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_neither_other_sets_nor_empty_places_nor_the_order_change_a_set(name: str) -> None:
    pool, features = pool_of(name), torch.randn(6, 4).double()
    together = pooled(pool, features, [3, 1, 2])
    for number, part in enumerate(features.split([3, 1, 2])):
        alone = pooled(pool, part, [len(part)])
        torch.testing.assert_close(alone, together[number : number + 1])
        torch.testing.assert_close(pooled(pool, part.flip(0), [len(part)]), alone)
    # a single image is itself, so that a network with views takes images one by one too
    torch.testing.assert_close(together[1], features[3])
    features[3] = torch.nan  # nor does what is broken in another
    assert together[[0, 2]].equal(pooled(pool, features, [3, 1, 2])[[0, 2]])


@pytest.mark.parametrize("name", POOLS)
def test_empty_places_take_no_gradient(name: str) -> None:
    pool, features = pool_of(name), torch.randn(4, 4).double().requires_grad_()
    pooled(pool, features, [3, 1])[1].sum().backward()
    assert features.grad is not None
    assert features.grad[:3].abs().sum() == 0
    torch.testing.assert_close(features.grad[3], torch.ones(4).double())


def test_what_is_said_of_a_set_is_said_of_each_of_its_images() -> None:
    held = torch.tensor([[True, False], [True, True]])
    assert over_images(torch.tensor([7, 8]), held).tolist() == [7, 8, 8]


# ---- networks


def network_of(views: str, *, classes: int = 2) -> Network:
    torch.manual_seed(0)
    return Network(
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        features=4,
        classes=classes,
        mean=[0.5],
        sd=[0.5],
        views=views,
    ).eval()


@pytest.mark.parametrize("name", POOLS)
def test_the_scores_of_a_set_stand_beside_each_of_its_images_in_their_order(name: str) -> None:
    network, images = network_of(name), torch.rand(6, 1, 8, 8)
    seen = see(network, images.split(4))
    told = tell(network, ACTIVATIONS["softmax"], small.TWO.names, seen, KEYS)
    for key in set(KEYS):
        places = [place for place, each in enumerate(KEYS) if each == key]
        own = torch.ones(1, len(places), dtype=torch.bool)
        with torch.no_grad():
            expected = network.classify(network.features(images[places]), own).softmax(dim=1)
        for place in places:
            np.testing.assert_allclose(told["score/malignant"][place], expected[0, 1], rtol=1e-5)
        if name == "attention":
            assert told["attention"][places].sum() == pytest.approx(1)
    assert ("attention" in told) == (name == "attention")
    turned = tell(network, ACTIVATIONS["softmax"], small.TWO.names, seen.flip(0), KEYS[::-1])
    for column, values in told.items():
        np.testing.assert_allclose(turned[column][::-1], values, rtol=1e-5)
    alone = tell(network, ACTIVATIONS["softmax"], small.TWO.names, seen)
    with torch.no_grad():
        expected = network(images).softmax(dim=1)
    np.testing.assert_allclose(alone["score/malignant"], expected[:, 1], rtol=1e-5)
    empty = tell(network, ACTIVATIONS["softmax"], small.TWO.names, see(network, []), [])
    assert [len(values) for values in empty.values()] == [0] * len(told)
    with pytest.raises(DataError, match="5 numbers of sets for 6 images; give one for each"):
        tell(network, ACTIVATIONS["softmax"], small.TWO.names, seen, KEYS[:5])


def test_a_frozen_backbone_trains_its_attention_with_its_head() -> None:
    network = network_of("attention")
    groups = FINETUNES.bound("head", {"lr": 0.1})(network)
    moved = {id(each) for group in groups for each in group["params"]}
    assert moved == {
        id(each) for part in (network.pool, network.head) for each in part.parameters()
    }
    assert len(moved) == 5


@pytest.mark.parametrize(("name", "least"), [("max", 0.97), ("attention", 0.97)])
def test_a_sign_in_one_of_several_images_is_found(name: str, least: float) -> None:
    """Of 8 images one carries the sign, in the one feature of four that is no noise."""
    generator = torch.Generator().manual_seed(0)

    def sets(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        features = torch.randn(count, 8, 4, generator=generator)
        features[:, 0, 0] += 6.0 * labels
        return features.flatten(0, 1), labels

    network = network_of(name)
    network.train()
    held = torch.ones(128, 8, dtype=torch.bool)
    optimizer = torch.optim.Adam(network.top.parameters(), lr=0.02)
    for _ in range(120):
        features, labels = sets(128)
        loss = nn.functional.cross_entropy(network.classify(features, held), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features, labels = sets(128)
    with torch.no_grad():
        outputs = network.eval().classify(features, held)
        weights = network.attention(features, held)
    assert auc(labels == 1, outputs[:, 1] - outputs[:, 0]) > least
    if weights is not None:
        assert weights.reshape(128, 8)[labels == 1, 0].median() > 0.5  # of 8, equal would be 1/8
    assert isinstance(network.pool, GatedAttention) == (weights is not None)


# ---- settings


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"views_of": "breast"}, "views_of 'breast' has no effect with views none"),
        ({"views": "max", "blend": "mixup"}, "blend 'mixup' mixes single images and views 'max'"),
        ({"views": "mean", "aggregate": "max"}, "aggregate 'max' has no effect with views 'mean'"),
    ],
)
def test_what_does_not_go_with_views_is_refused_in_one_line(settings, line) -> None:
    from mammo.driver import defaults

    given = {**defaults(train_classifier), "data": "data"}
    train_classifier.check({**given, "views": "attention", "views_of": "breast"})
    with pytest.raises(ConfigError, match=line) as caught:
        train_classifier.check({**given, **settings})
    assert "\n" not in str(caught.value)
