"""The programs of the server's image import each other by name, and so do these tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tracking_server"))
