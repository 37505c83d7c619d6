"""Storage servers on loopback for tests of DVC's remotes: an sshd, an S3-compatible server, and a
wire to either that stops in the middle of a transfer.
"""

import contextlib
import functools
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

from conftest import LONG

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


class Server(NamedTuple):
    """A storage server, and what its user has to know."""

    port: int
    heading: str  # title of its section in docs/sharing.md
    examples: dict[str, str]  # replacements for the examples of that section
    address: tuple[str, str]  # the option that has the port, and its value with {port}
    secrets: list[str]  # which must not be in git
    variables: dict[str, str]  # environment variables used instead of configured credentials
    hashes: Callable[[], dict[str, str]]  # the MD5 of each stored file, by its name under files/md5


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port: int, process: subprocess.Popen) -> None:
    """Wait until something listens on the port."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen on port {port}")


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ssh(directory: Path) -> Iterator[Server]:
    """Run an sshd with its own keys and configuration, for the user who runs the tests."""
    passphrase = "correct horse battery staple"
    for name, words in (("host", ""), ("user", passphrase)):
        make = (
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            words,
            "-C",
            name,
            "-f",
            directory / name,
        )
        subprocess.run(make, check=True)
    if os.geteuid() == 0:
        # sshd, as root, needs this directory for privilege separation; it disappears at reboot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    config = directory / "sshd_config"
    config.write_text(f"""\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
""")
    with (directory / "log").open("w") as log:
        process = subprocess.Popen((SSHD, "-D", "-e", "-f", config), stderr=log)
    with ended(process):
        answers(port, process)
        storage = directory / "storage"
        yield Server(
            port,
            "SSH",
            {
                "storage.example.org/srv/reviews": f"127.0.0.1{storage}",
                "user alice": f"user {getpass.getuser()}",
                "port 22": f"port {port}",
                "~/.ssh/id_ed25519": str(directory / "user"),
                "<passphrase>": f"'{passphrase}'",
            },
            ("port", "{port}"),
            [passphrase, str(directory / "user")],
            {},
            lambda: {
                str(path.relative_to(storage / "files/md5")): md5(path.read_bytes()).hexdigest()
                for path in sorted((storage / "files/md5").rglob("*"))
                if path.is_file() and path.suffix != ".tmp"
            },
        )


@contextlib.contextmanager
def s3(directory: Path) -> Iterator[Server]:
    """Run moto's server with one bucket and one user who may use it; it refuses everything else."""
    port = free_port()
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)),
            # As many unauthorized calls as it takes to create the user and the bucket.
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "4"},
            stdout=log,
            stderr=log,
        )
    with ended(process):
        answers(port, process)
        url = f"http://127.0.0.1:{port}"
        # Imported here because it is slow, and needed only when a server runs.
        import boto3

        client = functools.partial(boto3.client, endpoint_url=url, region_name="us-east-1")
        anyone = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        key, secret = new_user(client("iam", **anyone))
        alice = client("s3", aws_access_key_id=key, aws_secret_access_key=secret)
        alice.create_bucket(Bucket="bucket")
        yield Server(
            port,
            "S3",
            {
                "https://s3.example.org": url,
                "<access key>": key,
                "<secret key>": f"'{secret}'",
            },
            ("endpointurl", "http://127.0.0.1:{port}"),
            [key, secret],
            {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
            lambda: stored(alice),
        )


def new_user(iam: Any) -> tuple[str, str]:
    """Create a user who may use every bucket and nothing else; returns the access key."""
    iam.create_user(UserName="alice")
    statement = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    iam.put_user_policy(UserName="alice", PolicyName="s3", PolicyDocument=policy)
    key = iam.create_access_key(UserName="alice")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def stored(s3: Any) -> dict[str, str]:
    prefix = "reviews/files/md5/"
    keys = [
        each["Key"]
        for each in s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    ]
    return {
        key.removeprefix(prefix): md5(
            s3.get_object(Bucket="bucket", Key=key)["Body"].read()
        ).hexdigest()
        for key in keys
    }


class Wire:
    """A port that forwards to another one and stops within a file once `enough()` is true."""

    def __init__(self, to: int, enough: Callable[[], bool]) -> None:
        self.stopped = threading.Event()
        self._to, self._enough = to, enough
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for arguments in ((near, far, self._forward), (far, near, lambda data: data)):
                threading.Thread(target=self._carry, args=arguments, daemon=True).start()

    def _carry(
        self, source: socket.socket, target: socket.socket, passed: Callable[[bytes], bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(passed(data))
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _forward(self, data: bytes) -> bytes:
        if self.stopped.is_set():
            return b""
        # Requests are short, so a full buffer is part of a file.
        if len(data) == 4096 and self._enough():
            self.stopped.set()
            return data[:2048]
        return data
