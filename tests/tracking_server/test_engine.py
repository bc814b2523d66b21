"""The stack under a real Docker engine: what compose wires, our image, what the kernel enforces.

No registry is asked: PostgreSQL, the object store and nginx are Debian's, or the tests' own, under
the names that the compose file has, and our image is built by it on a Debian base. So this proves
the compose file and our Dockerfile, not the official images' entrypoints. Set ENGINE_FOLDER to a
folder to keep the images for the next time.
"""

import json
import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import engine as engines
import optuna
import pytest
import schema
import servers
import yaml
from mlflow import MlflowClient
from sqlalchemy.pool import NullPool

pytestmark = pytest.mark.slow
OURS = ("--filter", "label=com.docker.compose.project=mammo")
NAMES = {"postgres": "postgres", "minio": "minio", "proxy": "nginx"}


@pytest.fixture(scope="module")
def engine():
    try:
        with engines.running_engine() as running:
            engines.make_images(running, {image(service): NAMES[service] for service in NAMES})
            yield running
    except servers.Absent as absent:
        pytest.skip(str(absent))


def image(service: str) -> str:
    """The default of `${VARIABLE:-default}` in the compose file."""
    content = yaml.safe_load((servers.ROOT / "docker-compose.yml").read_text())
    return re.fullmatch(r"\$\{\w+:-(\S+)\}", content["services"][service]["image"])[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Secrets and ports, and a certificate that the proxy's user can read."""
    folder = tmp_path_factory.mktemp("stack")
    make = [servers.ROOT / "tracking_server" / "make-secrets", folder / "env"]
    subprocess.run(make, check=True, capture_output=True)
    with (folder / "env").open("a") as out:
        for name in ("MLFLOW_PORT", "POSTGRES_PORT", "DASHBOARD_PORT", "TLS_PORT"):
            out.write(f"{name}={servers.free_port()}\n")
        out.write(f"TLS_FOLDER={folder}/tls\nSERVER_NAME=lab.example\n")
    (folder / "tls").mkdir(mode=0o755)
    folder.chmod(0o755)
    servers.make_certificate(folder / "tls", "lab.example")
    for file in (folder / "tls").iterdir():
        shutil.chown(file, 101, 101)
    return folder


@pytest.fixture(scope="module")
def settings(folder) -> dict[str, str]:
    lines = (folder / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def stack(engine, folder):
    """`docker compose up`, with nothing beside the defaults."""
    engine.up(folder / "env", "--build")
    yield engine
    engine.compose(folder / "env", "--profile", "*", "down", "--volumes")


def names(stack: engines.Engine) -> list[str]:
    """The stack's containers that run."""
    return stack.docker("ps", *OURS, "--format", "{{.Names}}").split()


def test_weak_secrets_stop_the_stack_before_a_store_is_made(engine, folder):
    with pytest.raises(RuntimeError, match="didn't complete successfully: exit 1"):
        engine.compose(folder / "env", "up", "--detach", "--build", POSTGRES_PASSWORD="mlflow")
    said = engine.compose(folder / "env", "logs", "secrets", POSTGRES_PASSWORD="mlflow")
    assert "POSTGRES_PASSWORD has 6 characters, 16 are the least" in said
    states = engine.docker("ps", "--all", *OURS, "--format", "{{.Names}} {{.State}}").splitlines()
    assert "mammo-postgres-1 created" in states and "mammo-minio-1 created" in states
    engine.compose(folder / "env", "down", "--volumes")


def test_the_kernel_enforces_what_the_compose_file_says(stack, folder):
    running = names(stack)
    assert sorted(running) == ["mammo-minio-1", "mammo-mlflow-1", "mammo-postgres-1"]
    users = {}
    for name in running:
        status = stack.docker("exec", name, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["CapEff"], 16) == 0 and int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        users[name] = fields["Uid"].split()[0]
        limit = stack.docker("inspect", "--format", "{{.HostConfig.Memory}}", name)
        assert 0 < int(limit) <= 2 << 30
    assert users["mammo-mlflow-1"] == "10001" and users["mammo-postgres-1"] != "0"
    with pytest.raises(RuntimeError, match="Read-only file system"):
        stack.docker("exec", "mammo-mlflow-1", "touch", "/server/changed")
    with pytest.raises(RuntimeError, match="Read-only file system"):
        stack.docker("exec", "mammo-mlflow-1", "touch", "/opt/mlflow/changed")


def test_only_loopback_is_published_and_the_object_store_not_at_all(stack):
    ports = stack.docker("ps", *OURS, "--format", "{{.Names}} {{.Ports}}").splitlines()
    published = {line.split()[0]: re.findall(r"(\S+):\d+->", line) for line in ports}
    assert published == {
        "mammo-minio-1": [],
        "mammo-mlflow-1": ["127.0.0.1"],
        "mammo-postgres-1": ["127.0.0.1"],
    }
    networks = stack.docker(
        "inspect",
        "--format",
        "{{range $n, $_ := .NetworkSettings.Networks}}{{$n}} {{end}}",
        "mammo-minio-1",
    )
    assert networks.split() == ["mammo_objects"]
    assert (
        stack.docker("network", "inspect", "--format", "{{.Internal}}", "mammo_objects") == "true\n"
    )


def test_no_secret_is_in_the_image_or_the_logs(stack, folder, settings):
    shown = [
        stack.docker("history", "--no-trunc", "mammo/mlflow"),
        stack.docker("image", "inspect", "mammo/mlflow"),
        stack.compose(folder / "env", "logs"),
        *(stack.docker("top", name) for name in names(stack)),
    ]
    secrets = [value for value in settings.values() if re.fullmatch("[0-9a-f]{48}", value)]
    assert len(secrets) == 7
    assert not [value for value in secrets if value in "".join(shown)]
    inside = stack.docker("run", "--rm", "--entrypoint", "ls", "mammo/mlflow", "-A", "/server")
    assert ".env" not in inside.split() and "start.py" in inside.split()


def test_runs_and_files_survive_a_kill_of_both_stores_and_a_new_start(
    stack, folder, settings, monkeypatch
):
    url = f"http://127.0.0.1:{settings['MLFLOW_PORT']}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    client = MlflowClient(url)
    run = client.create_run("0").info.run_id
    client.log_metric(run, "val/auc", 0.875, step=3)
    client.log_text(run, "known words", "words.txt")
    stack.docker("kill", "--signal", "KILL", "mammo-postgres-1", "mammo-minio-1")
    stack.compose(folder / "env", "down")
    stack.up(folder / "env")
    assert client.get_run(run).data.metrics == {"val/auc": 0.875}
    [words] = Path(client.download_artifacts(run, "words.txt", folder)).read_text().splitlines()
    assert words == "known words"


@pytest.fixture
def lab(folder, tmp_path) -> Path:
    """What an administrator has of the project, with the secrets of the stack."""
    for name in ("Makefile", "docker-compose.yml"):
        shutil.copy(servers.ROOT / name, tmp_path)
    shutil.copytree(servers.ROOT / "tracking_server", tmp_path / "tracking_server")
    shutil.copy(folder / "env", tmp_path / ".env")
    return tmp_path


def test_make_upgrades_goes_back_and_restores_into_new_volumes(stack, settings, lab, monkeypatch):
    """Of Optuna's tables: the newest revision of Optuna 5 only adds an index, so can be undone."""
    url = f"http://127.0.0.1:{settings['MLFLOW_PORT']}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    client = MlflowClient(url)
    run = client.create_run("0").info.run_id
    client.log_text(run, "kept words", "words.txt")
    port, password = int(settings["POSTGRES_PORT"]), settings["OPTUNA_DB_PASSWORD"]
    studies = servers.Postgres(port, "optuna", password, "optuna")
    # its connections close at once: neither upgrade nor restore goes on beside a client
    storage = optuna.storages.RDBStorage(studies.uri, engine_kwargs={"poolclass": NullPool})
    optuna.create_study(study_name="before", storage=storage)
    former, newest = schema.STUDIES.revisions()[-2:]
    studies.query("UPDATE alembic_version SET version_num = %s", former)

    assert "upgraded optuna to MLflow" in stack.make(lab, "upgrade")
    assert studies.query("SELECT version_num FROM alembic_version") == [(newest,)]
    assert client.get_run(run).info.run_id == run
    [dump] = lab.glob("backups/*-before-upgrade")

    optuna.create_study(study_name="after", storage=storage)
    stack.make(lab, "rollback", f"FILE={dump}")
    assert studies.query("SELECT version_num FROM alembic_version") == [(former,)]
    assert studies.query("SELECT study_name FROM studies") == [("before",)]
    assert "mammo-mlflow-1" not in names(stack)
    assert "upgraded optuna" in stack.make(lab, "upgrade")  # the way back from it

    stack.make(lab, "backup", f"FILE={lab}/backup")
    stack.compose(lab / ".env", "--profile", "*", "down", "--volumes")
    assert "restored 3 databases, " in stack.make(lab, "restore", f"FILE={lab}/backup")
    [words] = Path(client.download_artifacts(run, "words.txt", str(lab))).read_text().splitlines()
    assert words == "kept words"
    assert studies.query("SELECT study_name FROM studies") == [("before",)]
    optuna.delete_study(study_name="before", storage=storage)


def test_studies_have_a_database_and_a_dashboard(stack, folder, settings):
    stack.up(folder / "env", COMPOSE_PROFILES="dashboard")
    uri = (
        f"postgresql+psycopg2://optuna:{settings['OPTUNA_DB_PASSWORD']}"
        f"@127.0.0.1:{settings['POSTGRES_PORT']}/optuna"
    )
    study = optuna.create_study(study_name="in the stack", storage=uri)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    address = f"http://127.0.0.1:{settings['DASHBOARD_PORT']}/api/studies"
    with urllib.request.urlopen(address, timeout=30) as answer:
        shown = json.load(answer)["study_summaries"]
    assert [entry["study_name"] for entry in shown] == ["in the stack"]


def test_users_log_in_through_https(stack, folder, settings):
    stack.up(folder / "env", COMPOSE_PROFILES="tls", MLFLOW_AUTH="on")
    add = ["exec", "--no-TTY", "mlflow", "python", "/server/start.py", "user", "add", "anna"]
    name, password = stack.compose(folder / "env", *add).split()
    trusted = ssl.create_default_context(cafile=folder / "tls" / "certificate.pem")
    trusted.check_hostname = False  # the name leads nowhere here
    address = (
        f"https://127.0.0.1:{settings['TLS_PORT']}/api/2.0/mlflow/experiments/search?max_results=1"
    )

    def ask(host: str, **headers: str) -> int:
        request = urllib.request.Request(address, headers={"Host": host, **headers})
        try:
            with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    known = {"Authorization": servers.basic(name, password)}
    assert ask("lab.example") == 401
    assert ask("lab.example", **known) == 200
    assert ask("elsewhere.example", **known) == 403
