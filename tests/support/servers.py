"""Real servers on the loopback: SSH, PostgreSQL, MLflow."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import asyncssh

from faulty_endpoint import LoopServer

BIN = "/usr/lib/postgresql"
"""Where Debian keeps PostgreSQL's own programs, each version in a folder; they are not on PATH."""


class SshServer(LoopServer):
    """`with SshServer(folder) as server:` lets in `user` with the key in the file `key`, to `files`
    as the root of what SFTP shows."""

    user = "colleague"

    def __init__(self, folder: Path) -> None:
        self.key, self.files = folder / "id_ed25519", folder / "files"

    async def open(self) -> None:
        self.files.mkdir()
        own = asyncssh.generate_private_key("ssh-ed25519")
        own.write_private_key(self.key)
        self.key.chmod(0o600)
        allowed = asyncssh.import_authorized_keys(own.export_public_key().decode())
        self.server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=allowed,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=bytes(self.files)),
        )
        self.url = f"ssh://{self.user}@127.0.0.1:{self.server.get_port()}"

    async def close(self) -> None:
        self.server.close()


def postgres_program(name: str) -> str | None:
    """The path of `initdb` or `postgres`; None where PostgreSQL is not installed."""
    found = sorted(Path(BIN).glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Postgres:
    """`with Postgres() as database:` has an empty database at `database.url`."""

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="postgres")
        data, port = f"{self.folder}/data", free_port()
        who = self.unprivileged()
        start = [str(postgres_program("initdb")), "--pgdata", data, "--username", "quip"]
        subprocess.run([*start, "--auth", "trust", "--no-sync"], check=True, **QUIETLY, **who)
        serve = [str(postgres_program("postgres")), "-D", data, "-k", self.folder, "-F"]
        serve += ["-h", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(serve, **QUIETLY, **who)
        self.address = f"quip@127.0.0.1:{port}/postgres"
        self.url = f"postgresql+psycopg2://{self.address}"
        wait(self.process, self.answers)
        return self

    def unprivileged(self) -> dict[str, Any]:
        """PostgreSQL refuses to be run by root; then another user does, who owns the folder."""
        if os.getuid():
            return {}
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = known.get("postgres") or known["nobody"]
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": self.folder}

    def answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(f"postgresql://{self.address}").close()
        except psycopg2.OperationalError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder)


QUIETLY: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class MlflowServer:
    """`mlflow server` on a database, with an artifact store of its own; may die and start again."""

    def __init__(self, database: str, artifacts: Path) -> None:
        port, self.log = free_port(), artifacts.with_name("mlflow-server.log")
        self.url = f"http://127.0.0.1:{port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self.command += ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
        self.command += ["--host", "127.0.0.1", "--port", str(port)]

    def start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
        more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**kept, **more}, start_new_session=True, stdout=log, stderr=log
            )
        wait(self.process, self.answers)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as found:
                return bool(found.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9 of it and of its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def wait(process: subprocess.Popen[bytes], answers: Any) -> None:
    while not answers():
        assert process.poll() is None, f"ended with {process.returncode}: {process.args}"
        time.sleep(0.1)
