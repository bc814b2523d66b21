"""Pretrained weights are read safely, known by their checksum, and a broken file is one line."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from mammo.classifiers.weights import check_weights, read_weights, weights_digest
from mammo.errors import CheckpointError, ConfigError


def test_a_state_dict_is_read_with_its_checksum(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, path)
    found = read_weights(str(path), "resnet18")
    assert found.tensors["a"].tolist() == [1, 1]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.source == "w.pth"


def test_safetensors_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_weights(str(tmp_path / "w.safetensors"), "x").tensors["a"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_truncated_file_is_one_line(tmp_path, suffix, kept):
    path = tmp_path / f"w.{suffix}"
    tensors = {"a": torch.arange(5000.0)}
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match=f"weights {path} are corrupt") as caught:
        read_weights(str(path), "resnet18")
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(5000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="corrupt"):
        read_weights(str(path), "resnet18")


def test_nothing_but_tensors_is_unpickled(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"a": pytest.approx}, protocol=2))
    with pytest.raises(CheckpointError, match="corrupt"):
        read_weights(str(path), "resnet18")


def test_a_missing_file_is_named_before_the_run_starts():
    with pytest.raises(ConfigError, match="is not a file; give none, default, the path"):
        check_weights("nowhere.pth")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("resnet18", "bring model.safetensors of the hub's timm/resnet18"),
        ("torchvision/mobilenet_v2", "bring mobilenet_v2-.*.pth to .*checkpoints"),
    ],
)
def test_without_network_the_error_says_which_file_to_bring(name, needed, tmp_path, monkeypatch):
    import socket

    def offline(*given, **more):
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=needed):
        read_weights("default", name)


def test_the_digest_of_weights_is_that_of_their_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    assert weights_digest(str(path)).startswith("ba7816bf")  # FIPS 180-2, appendix B.1
    assert weights_digest("none") == weights_digest("default") == ""
