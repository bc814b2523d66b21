"""Credentials: a server that does not know them loses nothing, and no password is kept or told."""

import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import doors
import pytest
from mlflow import MlflowClient

from mammo.errors import TrackingError
from mammo.tracking import Tracking

pytestmark = pytest.mark.doors


@dataclass
class Door:
    """A server that answers 401 to whatever it is asked."""

    port: int = 0
    heard: list[str] = field(default_factory=list)  # who asked


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door()

    class Closed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.heard.append(self.headers.get("Authorization", ""))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Closed)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


def test_wrong_credentials_end_the_start_at_once_in_one_line(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:s3cret@127.0.0.1:{door.port}")
    start = time.monotonic()
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_USERNAME and") as refused:
        Tracking()
    assert time.monotonic() - start < 20  # no wait for a server that is there
    assert "\n" not in str(refused.value) and "s3cret" not in str(refused.value)


def test_sync_with_wrong_credentials_keeps_all_and_a_password_is_nowhere(
    door: Door, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:s3cret@127.0.0.1:{door.port}")
    with Tracking(tmp_path / "home", offline=True) as tracking:
        run_id = tracking.create_run("given", "evaluate")
        tracking.set_status(run_id, "FAILED", error="no table at sql://anna:s3cret@db/x; see there")
    (journal,) = (tmp_path / "home" / "spool").glob("*/journal.jsonl")
    before = journal.read_text()
    done = doors.here("sync")
    assert done.code == 2
    assert "does not know these credentials" in done.out
    assert set(door.heard) == {"Basic " + base64.b64encode(b"anna:s3cret").decode()}
    assert journal.read_text() == before
    assert not (journal.parent / "rejected.jsonl").exists()
    everything = done.out + done.err + before
    assert "s3cret" not in everything
    # the administrator moves the server: the journal is for the address without its password
    journal.write_text(before.replace(f"http://anna:***@127.0.0.1:{door.port}", store))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert doors.here("sync").code == 0
    (found,) = MlflowClient().search_runs(["0"])
    assert found.data.tags["error"] == "no table at sql://anna:***@db/x; see there"
