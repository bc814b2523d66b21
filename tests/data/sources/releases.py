"""Builders of a miniature fake release for each adapter, which the contract of adapters reads.

A builder writes the release into an empty folder and says how it is read.
"""

from releases_a import RELEASES as RELEASES_A
from releases_b import RELEASES as RELEASES_B
from releases_c import RELEASES as RELEASES_C
from releases_form import Builder

RELEASES: dict[str, Builder] = {**RELEASES_A, **RELEASES_B, **RELEASES_C}
