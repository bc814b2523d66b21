"""The deployment as written down: what the compose file opens and takes away, and the secrets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml

COMPOSE = servers.ROOT / "docker-compose.yml"
# Services that run as root, and why; the compose file says it too.
ROOT_BECAUSE = {"minio": "the image has no other user, and a new volume is root's"}
SECRETS = {
    name: f"s3nt1nel-{name.lower()[:9]}-value"
    for name in (
        "POSTGRES_ADMIN_PASSWORD",
        "POSTGRES_PASSWORD",
        "AUTH_DB_PASSWORD",
        "OPTUNA_DB_PASSWORD",
        "MINIO_ROOT_PASSWORD",
        "MLFLOW_AUTH_ADMIN_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
    )
}


def services() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load(COMPOSE.read_text())
    return dict(content["services"])


OURS = [name for name, service in services().items() if service["image"] == "mammo/mlflow"]


@pytest.mark.parametrize("name", services())
def test_every_service_is_closed_in(name):
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"(\$\{[A-Z0-9_]+:-)?\d+[mg]\}?", service["mem_limit"])
    assert service["logging"]["options"]["max-size"]
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert "network_mode" not in service or service["network_mode"] == "none"
    user = service.get("user", "the image's")
    assert (user.split(":")[0] in {"0", "root"}) == (name in ROOT_BECAUSE)


@pytest.mark.parametrize("name", [*OURS, "proxy"])
def test_our_containers_cannot_change_their_own_files(name):
    service = services()[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]


def test_every_port_is_published_on_loopback_unless_an_administrator_says_otherwise():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith(("127.0.0.1:", "${TLS_ADDRESS:-127.0.0.1}:")) for port in ports)
    assert "ports" not in services()["minio"]
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["objects"]["internal"] is True


def test_the_image_runs_as_a_user_without_rights():
    lines = (servers.ROOT / "tracking_server" / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["10001:10001"]
    assert lines.index("USER 10001:10001") < lines.index(
        'ENTRYPOINT ["python", "/server/start.py"]'
    )
    assert "--require-hashes" in "\n".join(lines)


def test_every_secret_comes_from_outside_and_stops_the_stack_when_it_is_missing():
    secrets = [
        value
        for service in services().values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", name)
    ]
    assert len(secrets) > len(SECRETS)
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for value in secrets)


def test_data_lie_in_volumes_and_images_can_be_pulled():
    stack = services()
    assert stack["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]  # where 18 keeps them
    assert stack["minio"]["volumes"] == ["minio:/data"]
    # minio/minio is gone from the hub: the one name that a default must not have.
    assert stack["minio"]["image"].startswith("${S3_IMAGE:-pgsty/silo:RELEASE.")
    checked = {name for name, service in stack.items() if "healthcheck" in service}
    assert checked == {"postgres", "mlflow", "dashboard"}
    assert stack["mlflow"]["healthcheck"]["test"][-1] == "check"


def test_a_service_knows_only_the_secrets_that_it_needs():
    """`secrets` looks at all of them, `prepare` makes roles; the others open one door or two."""
    known = {
        name: sorted(
            key for key in SECRETS if any(f"{{{key}:?" in str(v) for v in environment.values())
        )
        for name, service in services().items()
        if name not in {"secrets", "prepare"} and (environment := service.get("environment", {}))
    }
    assert known == {
        "postgres": ["POSTGRES_ADMIN_PASSWORD"],
        "minio": ["MINIO_ROOT_PASSWORD"],
        "dashboard": ["OPTUNA_DB_PASSWORD"],
        "mlflow": [
            "AUTH_DB_PASSWORD",
            "MINIO_ROOT_PASSWORD",
            "MLFLOW_AUTH_ADMIN_PASSWORD",
            "MLFLOW_FLASK_SERVER_SECRET_KEY",
            "POSTGRES_PASSWORD",
        ],
    }


@pytest.mark.doors
@pytest.mark.parametrize("profiles", ["", "dashboard", "tls", "dashboard,tls"])
@pytest.mark.parametrize("store", ["minio", "seaweedfs"])
def test_compose_accepts_each_combination(profiles, store, tmp_path):
    files = [COMPOSE, *([servers.ROOT / "docker-compose.seaweedfs.yml"] * (store == "seaweedfs"))]
    shown = compose("config", files=files, COMPOSE_PROFILES=profiles, S3_IMAGE="an/image:tag")
    names = {"secrets", "postgres", "minio", "prepare", "mlflow"}
    more = {"dashboard": "dashboard", "tls": "proxy"}
    assert set(yaml.safe_load(shown)["services"]) == names | {
        service for profile, service in more.items() if profile in profiles.split(",")
    }


@pytest.mark.doors
@pytest.mark.parametrize("missing", SECRETS)
def test_compose_refuses_a_missing_secret(missing):
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        compose("config", "--quiet", **{missing: ""})
    assert f"{missing} is missing a value: run make server" in refusal.value.stderr


def compose(*arguments: str, files: list[Path] | None = None, **settings: str) -> str:
    """Output of Compose's own program, with made-up secrets."""
    program = servers.ROOT / ".tools" / "docker-compose"
    found = str(program) if program.exists() else shutil.which("docker-compose")
    if not found:
        pytest.skip("Compose is not installed (.ci/fetch-compose brings it)")
    named = [part for file in files or [COMPOSE] for part in ("--file", str(file))]
    environment = {"PATH": os.environ["PATH"], "MINIO_ROOT_USER": "mammo", **SECRETS, **settings}
    return subprocess.run(
        [found, *named, "--env-file", os.devnull, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_no_file_under_version_control_holds_a_secret():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=servers.ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assert ".env" not in listed
    assigned = re.compile(
        rf"^\s*(?:{'|'.join(SECRETS)})\s*[=:]\s*(?P<value>[^\s$&*{{'\"]\S+)", re.M
    )
    texts = [
        servers.ROOT / name for name in listed if name.endswith((".yml", ".yaml", ".env", ".md"))
    ]
    assert COMPOSE in texts
    found = {
        path.name: match["value"] for path in texts for match in assigned.finditer(path.read_text())
    }
    assert found == {}


# --- the secrets themselves


def start(action: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, servers.START, action],
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def strong() -> dict[str, str]:
    values = {name: f"Kq7-{number}-vX2mZp9LwT" for number, name in enumerate(SECRETS)}
    values["AWS_SECRET_ACCESS_KEY"] = values.pop("MINIO_ROOT_PASSWORD")
    return values


@pytest.mark.doors
def test_good_secrets_pass():
    passed = start("secrets", **strong())
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, "", "")


@pytest.mark.doors
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"POSTGRES_PASSWORD": ""}, "POSTGRES_PASSWORD is missing in the environment"),
        ({"POSTGRES_PASSWORD": "k7Gq"}, "POSTGRES_PASSWORD has 4 characters, 16 are the least"),
        ({"AWS_SECRET_ACCESS_KEY": "minioadminminioadmin"}, "contains 'admin', which is guessed"),
        ({"OPTUNA_DB_PASSWORD": "MyPassword-is-long"}, "contains 'password', which is guessed"),
        ({"AUTH_DB_PASSWORD": "abababababababababab"}, "has only 2 different characters"),
        (
            {"AUTH_DB_PASSWORD": "Kq7-0-vX2mZp9LwT"},
            "AUTH_DB_PASSWORD is the same as POSTGRES_ADMIN_PASSWORD",
        ),
        ({"TLS_ADDRESS": "0.0.0.0"}, "lets others in and nobody logs in: set MLFLOW_AUTH=on"),
        ({"MLFLOW_AUTH": "yes"}, "MLFLOW_AUTH is 'yes'; it can be on or off"),
    ],
)
def test_a_weak_secret_is_refused_in_one_line_that_does_not_show_it(settings, reason):
    if "MLFLOW_AUTH" in settings:
        settings = {**settings, "TLS_ADDRESS": "0.0.0.0"}
    refused = start("secrets", **{**strong(), **settings})
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert reason in line
    if value := settings.get("POSTGRES_PASSWORD"):
        assert value not in line


@pytest.mark.doors
def test_an_open_address_is_accepted_where_users_log_in():
    assert start("secrets", **strong(), TLS_ADDRESS="0.0.0.0", MLFLOW_AUTH="on").returncode == 0


def make_secrets(*arguments: str | Path, **settings: str) -> str:
    return subprocess.run(
        [servers.ROOT / "tracking_server" / "make-secrets", *arguments],
        env={"PATH": os.environ["PATH"], **settings},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.doors
def test_secrets_are_random_private_and_kept(tmp_path):
    target = tmp_path / ".env"
    shown = make_secrets(target)
    first = target.read_text()
    assert target.stat().st_mode & 0o777 == 0o600
    values = dict(line.split("=", 1) for line in first.splitlines() if "=" in line)
    assert set(values) == {*SECRETS, "MINIO_ROOT_USER"}
    assert len({values[name] for name in SECRETS}) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", values[name]) for name in SECRETS)
    assert not any(values[name] in shown for name in SECRETS)
    make_secrets(target)
    assert target.read_text() == first


@pytest.mark.doors
def test_an_older_file_of_secrets_keeps_its_own_and_gets_what_is_missing(tmp_path):
    target = tmp_path / ".env"
    target.write_text("POSTGRES_PASSWORD=as-it-was\nMLFLOW_PORT=5001")
    make_secrets(target)
    lines = target.read_text().splitlines()
    assert lines[:2] == ["POSTGRES_PASSWORD=as-it-was", "MLFLOW_PORT=5001"]
    assert {line.split("=")[0] for line in lines} == {*SECRETS, "MINIO_ROOT_USER", "MLFLOW_PORT"}
    assert target.stat().st_mode & 0o777 == 0o600
    target.chmod(0o644)  # as a copy may come
    make_secrets(target)
    assert target.read_text().splitlines() == lines
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.doors
def test_the_address_of_the_studies_quotes_the_password(tmp_path):
    copy = tmp_path / "tracking_server"
    copy.mkdir()
    shutil.copy(servers.ROOT / "tracking_server" / "make-secrets", copy)
    (tmp_path / ".env").write_text("OPTUNA_DB_PASSWORD=a:b/c@d%e\nPOSTGRES_PORT=2345\n")
    shown = subprocess.run(
        [copy / "make-secrets", "--optuna"], check=True, capture_output=True, text=True
    ).stdout
    assert shown == "postgresql+psycopg2://optuna:a%3Ab%2Fc%40d%25e@127.0.0.1:2345/optuna\n"
