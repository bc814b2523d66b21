"""Batches hold the right pixels under the right labels, in an order that the epoch decides."""

import numpy as np
import pytest
import small
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch

from mammo.data.loading import ordered_batches, training_batches
from mammo.data.samplers import SAMPLERS

ROWS = np.array([1, 3, 4, 6, 8])


@pytest.fixture
def data(tmp_path):
    return small.dataset(tmp_path, small.real_rows({"benign": [1] * 5, "malignant": [1] * 4}))


def shuffled(epoch):
    return SAMPLERS["random"](np.zeros(len(ROWS), int), 0, epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_the_stored_pixels_and_labels_of_its_rows(data, workers):
    loader = training_batches(data, ROWS, batch_size=2, order=shuffled, workers=workers)
    seen = []
    for batch in loader:
        assert batch["image"].dtype == torch.float32
        for image, label, row in zip(batch["image"], batch["label"], batch["row"], strict=True):
            seen.append(int(row))
            stored = small.pixels(data.manifest["image_id"][int(row)])
            np.testing.assert_array_equal(image.numpy(), stored.astype(np.float32) / 65535)
            assert data.classes.names[label] == data.manifest["label"][int(row)]
    assert seen == ROWS[shuffled(0)][:4].tolist()  # the fifth would be a batch of one


def test_the_trainer_moves_the_order_on_by_epoch(data):
    loader = training_batches(data, ROWS, batch_size=5, order=shuffled)
    for epoch in (3, 0, 3):
        _set_sampler_epoch(loader, epoch)
        (batch,) = loader
        assert batch["row"].tolist() == ROWS[shuffled(epoch)].tolist()


def test_ordered_batches_hold_all_rows_as_given(data):
    turned = ROWS[::-1]
    rows = [batch["row"].tolist() for batch in ordered_batches(data, turned, batch_size=2)]
    assert rows == [[8, 6], [4, 3], [1]]


def test_a_loader_leaves_the_global_generator_alone(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(training_batches(data, ROWS, batch_size=2, order=shuffled))
    list(ordered_batches(data, ROWS, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_shorter_or_longer_than_the_rows_is_followed(data):
    loader = training_batches(data, ROWS, batch_size=4, order=lambda epoch: np.zeros(6, int))
    assert [batch["row"].tolist() for batch in loader] == [[1, 1, 1, 1], [1, 1]]
    assert len(loader) == 2
