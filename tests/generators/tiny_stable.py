"""Builds a tiny but whole Stable Diffusion pipeline on disk, with CLIP's own vocabulary."""

import gzip
import json
from pathlib import Path

import torch

WIDTH = 32  # of the text embeddings
LENGTH = 77  # tokens of a prompt
LETTERS = 200  # of a prompt where each is a token
# As Stable Diffusion 1.5 says it.
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build(folder: Path, *, merges: Path | None = None, seed: int = 0, **scheduler: object) -> Path:
    """Write a pipeline with weights drawn from `seed` into `folder`, in the layout of diffusers.

    A latent stands for 4 x 4 pixels, for 8 x 8 in the real one: tiny images have some left.
    `merges` is CLIP's own file; without it the vocabulary has the bytes alone: every letter is a
    token, and prompts may be longer. `scheduler` changes the scheduler's settings.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    size = write_tokenizer(folder / "tokenizer", merges)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=size,
                hidden_size=WIDTH,
                intermediate_size=WIDTH,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=LENGTH if merges else LETTERS,
                bos_token_id=size - 2,
                eos_token_id=size - 1,
                pad_token_id=size - 1,
            )
        )
        for weight in text.parameters():  # CLIP's own start is so near 0 that prompts are alike
            weight.data += 0.2 * torch.randn(weight.shape)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    _write(folder / "scheduler/scheduler_config.json", {**SCHEDULER, **scheduler})
    _write(folder / "model_index.json", INDEX)
    return folder


def write_tokenizer(folder: Path, merges: Path | None) -> int:
    """CLIP's tokenizer as its hub has it: vocab.json and merges.txt; the size of the vocabulary."""
    letters = list(_letters().values())
    pairs: list[str] = []
    if merges is not None:
        with gzip.open(merges, "rt", encoding="utf-8") as file:
            pairs = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["".join(pair.split()) for pair in pairs]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    _write(folder / "vocab.json", {token: place for place, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n", "utf-8")
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": "<|startoftext|>",
            "do_lower_case": True,
            "eos_token": "<|endoftext|>",
            "model_max_length": LENGTH if merges else LETTERS,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": "<|endoftext|>",
        },
    )
    return len(tokens)


def _letters() -> dict[int, str]:
    """A printable character for each of the 256 bytes, in the order of CLIP's vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + place) for place, byte in enumerate(hidden)
    }


def _write(path: Path, said: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
