"""Stable Diffusion as a base: its parts from a folder or the hub, LoRA and ControlNet on them."""
