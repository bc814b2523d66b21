"""A Docker engine of the tests' own, with images made here instead of a registry's."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import servers

STANDINS = Path(__file__).parent / "standins"
BASE = "local/python-base"
PACKAGES = "ca-certificates,python3,python3-venv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Engine:
    """The engine's folder, and the programs that speak to it."""

    folder: Path
    docker_program: str
    compose_program: str

    @property
    def environment(self) -> dict[str, str]:
        """The build stands on the base made here; the old builder needs no plug-in."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_BUILDKIT": "0",
            "BASE_IMAGE": BASE,
        }

    def docker(self, *arguments: str | Path) -> str:
        """Output of one `docker` command."""
        return self._run([self.docker_program, *map(str, arguments)], {})

    def compose(self, env_file: Path, *arguments: str, **settings: str) -> str:
        """Output of one `docker compose` command on the project's own file."""
        named = ["--file", str(servers.ROOT / "docker-compose.yml"), "--env-file", str(env_file)]
        return self._run([self.compose_program, *named, *arguments], settings)

    def up(self, env_file: Path, *arguments: str, **settings: str) -> None:
        """`docker compose up`; what the services said is in the error when they do not start."""
        try:
            self.compose(env_file, "up", "--detach", "--wait", *arguments, **settings)
        except RuntimeError as error:
            said = self.compose(env_file, "logs", "--tail", "20", **settings)
            raise RuntimeError(f"{error}\n{said}") from error

    def make(self, lab: Path, *words: str) -> str:
        """Output of `make` in a copy of the project, where `docker compose` is a plug-in's."""
        plugins = self.folder / ".docker" / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        if not (plugins / "docker-compose").exists():
            (plugins / "docker-compose").symlink_to(Path(self.compose_program).resolve())
        return self._run(["make", "--directory", str(lab), *words], {})

    def _run(self, command: list[str], settings: dict[str, str]) -> str:
        done = subprocess.run(
            command,
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-1500:]} {done.stderr[-3000:]}")
        return done.stdout


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Docker's engine, started by hand; when it ends, its network rules are as they were before."""
    needed = {
        name: shutil.which(name) for name in ("docker", "dockerd", "debootstrap", "iptables-save")
    }
    compose = servers.ROOT / ".tools" / "docker-compose"
    missing = [name for name, found in needed.items() if not found]
    if os.geteuid() or missing or not compose.exists():
        raise servers.Absent(
            "an engine of one's own needs root, docker.io, debootstrap, iptables and "
            f".ci/fetch-compose; missing: {', '.join(missing) or compose.name or 'root'}"
        )
    network = _Network()
    kept = os.environ.get("ENGINE_FOLDER")  # images stay there, for the next time
    folder = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="mammo-engine-"))
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(folder, str(needed["docker"]), str(compose))
    command = [
        *("dockerd", "--host", engine.environment["DOCKER_HOST"], "--data-root", folder / "data"),
        *("--exec-root", folder / "exec", "--pidfile", folder / "pid", "--ip", "127.0.0.1"),
    ]
    try:
        with servers.running(command, folder / "log") as process:
            servers.wait_until(
                lambda: engine.docker("version"), process, folder / "log", timeout_s=60
            )
            yield engine
    finally:
        network.restore()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", line.split()[1]], check=True)
        if not kept:
            shutil.rmtree(folder)


class _Network:
    """This machine's bridges and packet rules, so that what the engine adds can be taken away."""

    forwarding = Path("/proc/sys/net/ipv4/ip_forward")

    def __init__(self) -> None:
        self.bridges = self._bridges()
        if "docker0" in self.bridges:
            raise servers.Absent("a Docker engine runs here already, whose network is left alone")
        self.rules = subprocess.check_output(["iptables-save"], text=True)
        self.forwarded = self.forwarding.read_text()

    @staticmethod
    def _bridges() -> set[str]:
        show = ["ip", "-oneline", "link", "show", "type", "bridge"]
        lines = subprocess.check_output(show, text=True).splitlines()
        return {line.split(": ")[1] for line in lines}

    def restore(self) -> None:
        for name in sorted(self._bridges() - self.bridges):
            subprocess.run(["ip", "link", "delete", name], check=True)
        now = subprocess.check_output(["iptables-save"], text=True)
        for table in re.findall(r"^\*(\w+)$", now, re.MULTILINE):
            if f"*{table}" not in self.rules.splitlines():  # it was empty
                for chains in ("--flush", "--delete-chain"):
                    subprocess.run(["iptables", "--table", table, chains], check=True)
        subprocess.run(["iptables-restore"], input=self.rules, text=True, check=True)
        if "*filter" not in self.rules.splitlines():
            subprocess.run(["iptables", "--policy", "FORWARD", "ACCEPT"], check=True)
        self.forwarding.write_text(self.forwarded)


def make_images(engine: Engine, images: dict[str, str]) -> None:
    """Debian as the base, and on it a stand-in for each image: its name to its folder here."""
    present = set(engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split())
    if f"{BASE}:latest" not in present:
        _make_base(engine)
    for image, standin in images.items():
        if image in present:
            continue
        context = engine.folder / "context"
        shutil.copytree(STANDINS / standin, context)
        if standin == "minio":
            shutil.copy(servers.minio_program(), context / "minio")
        engine.docker("build", "--quiet", "--tag", image, context)
        shutil.rmtree(context)


def _make_base(engine: Engine) -> None:
    """A Debian with Python, of the packages that this machine's own apt reaches."""
    root = engine.folder / "root"
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )["VERSION_CODENAME"]
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, str(root)],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    shutil.copy(CERTIFICATES, root / "etc/ssl/certs")  # the machine's own, which pip has to trust
    archive = engine.folder / "root.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    shutil.rmtree(root)
    trust = f"ENV PIP_CERT={CERTIFICATES} SSL_CERT_FILE={CERTIFICATES}"
    engine.docker("import", "--change", trust, archive, BASE)
    archive.unlink()
