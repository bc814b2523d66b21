"""Users who log in: nobody without a password, nobody into another's experiment, and `user …`."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import servers

pytestmark = pytest.mark.doors
FIRST_PASSWORD = "Kq7-first-vX2mZp9LwT"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("login")


@pytest.fixture(scope="module")
def server(log, postgres, minio):
    """A server where users log in, started a second time with another password of the admin."""
    pytest.importorskip("flask_wtf", reason="flask-wtf is not installed (the extra `server`)")
    settings = {"bucket": "login", "MLFLOW_AUTH": "on"}
    with servers.running_mlflow(
        log / "first", postgres, minio, **settings, MLFLOW_AUTH_ADMIN_PASSWORD=FIRST_PASSWORD
    ) as first:
        added(first, "dora")
    with servers.running_mlflow(log, postgres, minio, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server):
    return ("admin", server.environment["MLFLOW_AUTH_ADMIN_PASSWORD"])


@pytest.fixture(scope="module")
def anna(server):
    return added(server, "anna")


@pytest.fixture(scope="module")
def bert(server):
    return added(server, "bert")


@pytest.fixture(scope="module")
def annas(server, anna):
    """Experiment and run of anna, and the address of a file in it."""
    made = body(ask(server, "POST", "experiments/create", {"name": "annas"}, anna))
    experiment = made["experiment_id"]
    run = body(ask(server, "POST", "runs/create", {"experiment_id": experiment}, anna))["run"]
    name = run["info"]["run_id"]
    file = f"{experiment}/{name}/artifacts/words.txt"
    assert ask(server, "PUT", f"-artifacts/artifacts/{file}", b"of anna", anna)[0] == 200
    return experiment, name, file


def added(server, name):
    answer = server.start("user", "add", name)
    assert answer.returncode == 0, answer.stderr
    shown, password = answer.stdout.split()
    assert shown == name and len(password) == 24
    return name, password


def ask(server, method, path, content=None, user=None, door="api/2.0"):
    """Status and body; `path` follows /api/2.0/mlflow, with a slash where it starts with none."""
    path = path if path.startswith(("-", "/")) else f"/{path}"
    address = f"{server.url}/{door}/mlflow{path}" if door else f"{server.url}{path}"
    sent = (
        content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    )
    request = urllib.request.Request(address, data=sent, method=method)
    request.add_header("Content-Type", "application/json")
    if user:
        request.add_header("Authorization", servers.basic(*user))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def body(answer):
    assert answer[0] == 200, answer
    return json.loads(answer[1])


def requests(experiment, run, file):
    """Every way to read, write and delete what an experiment holds."""
    metric = {"run_id": run, "key": "auc", "value": 1.0, "timestamp": 1}
    return [
        ("GET", f"experiments/get?experiment_id={experiment}", None, "api/2.0"),
        ("POST", "experiments/update", {"experiment_id": experiment, "new_name": "x"}, "api/2.0"),
        ("POST", "experiments/delete", {"experiment_id": experiment}, "api/2.0"),
        ("GET", f"runs/get?run_id={run}", None, "api/2.0"),
        ("POST", "runs/log-metric", metric, "api/2.0"),
        ("POST", "runs/log-batch", {"run_id": run, "metrics": [metric]}, "api/2.0"),
        ("POST", "runs/create", {"experiment_id": experiment}, "api/2.0"),
        ("POST", "runs/delete", {"run_id": run}, "api/2.0"),
        ("GET", f"metrics/get-history?run_id={run}&metric_key=auc", None, "api/2.0"),
        ("GET", f"artifacts/list?run_id={run}", None, "api/2.0"),
        ("GET", f"/get-artifact?run_uuid={run}&path=words.txt", None, ""),
        ("POST", f"upload-artifact?run_uuid={run}&path=a.txt", b"x", "ajax-api/2.0"),
        *(
            (method, f"-artifacts/artifacts{rest}", sent, door)
            for door in ("api/2.0", "ajax-api/2.0")
            for method, rest, sent in (
                ("GET", f"/{file}", None),
                ("PUT", f"/{file}", b"of bert"),
                ("DELETE", f"/{file}", None),
                ("GET", f"?path={experiment}", None),
            )
        ),
    ]


def test_without_a_password_everything_is_401(server, annas):
    for method, path, content, door in requests(*annas):
        assert ask(server, method, path, content, door=door)[0] == 401, path
    assert ask(server, "GET", "/", door="")[0] == 401
    assert ask(server, "POST", "experiments/search", {"max_results": 1})[0] == 401


def test_a_wrong_password_is_401(server, annas, anna):
    for user in (
        (anna[0], anna[1] + "x"),
        (anna[0], ""),
        ("admin", "password1234"),
        ("nobody", "x"),
    ):
        assert ask(server, "POST", "experiments/search", {"max_results": 1}, user)[0] == 401


def test_anothers_experiment_is_403_and_unchanged(server, annas, anna, bert):
    for method, path, content, door in requests(*annas):
        assert ask(server, method, path, content, bert, door)[0] == 403, path
    found = body(ask(server, "POST", "experiments/search", {"max_results": 10}, bert))
    assert "annas" not in {entry["name"] for entry in found.get("experiments", [])}
    assert ask(server, "GET", f"-artifacts/artifacts/{annas[2]}", None, anna) == (200, b"of anna")
    run = body(ask(server, "GET", f"runs/get?run_id={annas[1]}", None, anna))["run"]
    assert (run["info"]["lifecycle_stage"], run["data"].get("metrics")) == ("active", None)


def test_a_model_does_not_lead_into_anothers_experiment(server, annas, bert):
    _, run, file = annas
    assert ask(server, "POST", "registered-models/create", {"name": "berts"}, bert)[0] == 200
    folder = file.rsplit("/", 1)[0]
    version = 0
    for source, run_id in (
        (f"s3://login/mlflow/{folder}", ""),
        (f"mlflow-artifacts:/{folder}", ""),
        (f"mlflow-artifacts:/{folder}", run),
        (f"runs:/{run}/", run),
        (f"runs:/{run}/", ""),
        ("s3://login/mlflow", ""),  # where the files of all experiments lie
        ("s3://login/mlflow/", ""),
        ("S3://login/mlflow", ""),
    ):
        wanted = {"name": "berts", "source": source} | ({"run_id": run_id} if run_id else {})
        status, _ = ask(server, "POST", "model-versions/create", wanted, bert)
        version += status == 200
        for name in ("words.txt", file):
            path = f"/model-versions/get-artifact?name=berts&version={version or 1}&path={name}"
            status, answer = ask(server, "GET", path, None, bert, door="")
            assert (status, b"of anna" in answer) in {(403, False), (404, False)}, source


def test_a_user_is_not_told_what_others_may_do(server, annas, bert):
    body(ask(server, "POST", "experiments/create", {"name": "berts"}, bert))  # and has a role
    for path in ("list?workspace=default", "get?role_id=1", "permissions/list?role_id=1"):
        for door in ("api/3.0", "ajax-api/3.0"):
            status, told = ask(server, "GET", f"roles/{path}", None, bert, door)
            assert (status, b"permission_id" in told or b"resource" in told) == (403, False), path
    told = ask(server, "GET", "users/permissions/list?username=anna", None, bert, "api/3.0")
    assert told[0] == 403


def test_a_user_is_permitted_by_name_and_forbidden_again(server, annas, bert):
    _, run, _ = annas
    read = f"runs/get?run_id={run}"
    metric = {"run_id": run, "key": "note", "value": 1.0, "timestamp": 1}
    for which, level, statuses in (
        ("annas", "READ", [200, 403]),
        ("annas", "EDIT", [200, 200]),
        ("annas", "NONE", [403, 403]),
        ("*", "READ", [200, 403]),
        ("*", "NONE", [403, 403]),
    ):
        done = server.start("user", "permit", "bert", "experiment", which, level)
        assert (done.returncode, done.stderr) == (0, "")
        listed = server.start("user", "list").stdout
        assert (f"bert: experiment {which} {level}" in listed) == (level != "NONE")
        assert [
            ask(server, "GET", read, None, bert)[0],
            ask(server, "POST", "runs/log-metric", metric, bert)[0],
        ] == statuses


def test_a_removed_user_and_an_old_password_are_401(server):
    carl = added(server, "carl")
    search = ("POST", "experiments/search", {"max_results": 1})
    assert ask(server, *search, carl)[0] == 200
    renewed = tuple(server.start("user", "password", "carl").stdout.split())
    assert ask(server, *search, carl)[0] == 401
    assert ask(server, *search, renewed)[0] == 200
    assert server.start("user", "remove", "carl").returncode == 0
    assert ask(server, *search, renewed)[0] == 401
    assert "carl" not in server.start("user", "list").stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add", "anna"], "user add: there is a user anna"),
        (["remove", "nobody"], "404: User with username=nobody not found"),
        (["remove", "admin"], "admin is the administrator"),
        (["password", "admin"], "MLFLOW_AUTH_ADMIN_PASSWORD in .env; change it there"),
        (["permit", "anna", "experiment", "nowhere", "READ"], "404"),
        (["permit", "anna", "experiment", "annas", "ALL"], "expected experiment|model and READ|"),
        (["add"], "expected one of user list"),
        ([], "expected one of user list"),
    ],
)
def test_a_mistake_is_named_in_one_line(server, annas, words, reason):
    refused = server.start("user", *words)
    assert (refused.returncode, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    assert reason in line


def test_the_administrators_password_is_the_one_in_the_settings(server, admin):
    """The server was started with another one before; its users are still there."""
    search = ("POST", "experiments/search", {"max_results": 1})
    assert ask(server, *search, admin)[0] == 200
    assert ask(server, *search, ("admin", FIRST_PASSWORD))[0] == 401
    assert "dora" in server.start("user", "list").stdout
    assert server.start("check").returncode == 0
    assert Path(server.environment["MLFLOW_AUTH_CONFIG_PATH"]).stat().st_mode & 0o777 == 0o600


def test_no_password_shows_in_the_log_or_the_database(server, log, anna, postgres):
    text = (log / "log").read_text()
    for value in (anna[1], server.environment["MLFLOW_AUTH_ADMIN_PASSWORD"]):
        assert value not in text
    users = servers.Postgres(postgres.port, "mlflow_auth", servers.AUTH_DB_PASSWORD, "mlflow_auth")
    stored = dict(users.query("SELECT username, password_hash FROM users"))
    assert {"admin", "anna"} <= set(stored)
    assert anna[1] not in stored["anna"] and stored["anna"].startswith(("scrypt:", "pbkdf2:"))
