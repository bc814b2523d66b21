"""Fake releases of the adapters."""

from releases_form import Builder

RELEASES: dict[str, Builder] = {}
