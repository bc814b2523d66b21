"""nginx.conf in a real nginx in front of a real server: HTTPS alone, names still checked."""

import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
import servers

pytestmark = pytest.mark.doors
CONFIGURATION = servers.ROOT / "tracking_server" / "nginx.conf"


@pytest.fixture(scope="module")
def program():
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if not found:
        pytest.skip("nginx is not installed")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory, postgres, minio):
    folder = tmp_path_factory.mktemp("behind")
    names = {"SERVER_NAME": "lab.example", "TLS_PORT": "8443"}
    with servers.running_mlflow(folder, postgres, minio, bucket="behind", **names) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(program, server, tmp_path_factory):
    """Port of nginx with the project's configuration, moved to this machine's places."""
    folder = tmp_path_factory.mktemp("proxy")
    servers.make_certificate(folder, "lab.example")
    port = servers.free_port()
    text = CONFIGURATION.read_text()
    for there, here in (
        ("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/tmp/", f"{folder}/"),
        ("/tls/", f"{folder}/"),
        ("http://mlflow:5000", server.url),
        ("resolver 127.0.0.11 valid=10s;", ""),  # Docker's
    ):
        assert there in text
        text = text.replace(there, here)
    assert not re.search(r"mlflow:|/tls/", text)
    moved = folder / "nginx.conf"
    moved.write_text(text)
    subprocess.run([program, "-t", "-c", moved], check=True, capture_output=True)
    command = [program, "-c", moved, "-g", "daemon off;"]
    with servers.running(command, folder / "log") as process:
        servers.wait_until(
            lambda: ask(port, "/", folder / "certificate.pem"),
            process,
            folder / "log",
            timeout_s=20,
        )
        yield port, folder / "certificate.pem"


def ask(port, path, certificate, *, method="GET", body=None, version=None, **headers):
    """Status and body of a request over HTTPS as `lab.example`."""
    trusted = ssl.create_default_context(cafile=certificate)
    trusted.check_hostname = False  # the name leads nowhere here
    if version:
        trusted.minimum_version = trusted.maximum_version = version
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=body, method=method)
    for name, value in {"Host": "lab.example", **headers}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def test_the_server_answers_over_https_under_its_name(proxy):
    status, body = ask(proxy[0], SEARCH, proxy[1])
    assert (status, b'"experiment_id"' in body) == (200, True)


def test_foreign_names_and_pages_are_refused_and_its_own_page_may_write(proxy):
    json = {"Content-Type": "application/json"}
    create = "/ajax-api/2.0/mlflow/experiments/create"
    assert ask(*proxy[:1], SEARCH, proxy[1], Host="elsewhere.example")[0] == 403
    for origin, status in (
        ("https://elsewhere.example", 403),
        ("http://lab.example", 403),
        ("https://lab.example:8443", 200),
        ("https://lab.example", 200),
    ):
        body = b'{"name": "from %s"}' % origin.encode()
        sent = {"method": "POST", "body": body, "Origin": origin, **json}
        assert ask(proxy[0], create, proxy[1], **sent)[0] == status, origin


def test_plain_http_and_old_tls_are_refused(proxy):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"http://127.0.0.1:{proxy[0]}{SEARCH}", timeout=10)
    with pytest.raises(urllib.error.URLError, match=r"(?i)ssl"), pytest.warns(DeprecationWarning):
        ask(proxy[0], SEARCH, proxy[1], version=ssl.TLSVersion.TLSv1_1)
    assert ask(proxy[0], SEARCH, proxy[1], version=ssl.TLSVersion.TLSv1_2)[0] == 200


def test_a_big_file_passes_both_ways_and_a_climbing_path_does_not(proxy):
    big = bytes(range(256)) * (64 << 10)  # 16 MiB, sixteen times what nginx takes by default
    path = "/api/2.0/mlflow-artifacts/artifacts/0/big.bin"
    assert ask(proxy[0], path, proxy[1], method="PUT", body=big)[0] == 200
    assert ask(proxy[0], path, proxy[1]) == (200, big)
    for climb in ("..%2fwords.txt", "%2e%2e/%2e%2e/words.txt", "%252e%252e%252fwords.txt"):
        refused = ask(proxy[0], f"/api/2.0/mlflow-artifacts/artifacts/{climb}", proxy[1])
        assert 400 <= refused[0] < 500


def test_the_assistant_is_not_reached(proxy):
    assert ask(proxy[0], "/ajax-api/3.0/mlflow/assistant/config", proxy[1])[0] == 403
