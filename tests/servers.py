"""Real servers on the loopback: SSH, PostgreSQL, MLflow."""

from __future__ import annotations

from pathlib import Path

import asyncssh

from faulty import LoopServer


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
