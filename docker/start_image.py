"""Start what docker/Dockerfile would start, check its health, and stop it. See try-image.sh.

Environment, command, health check, working directory, signal and user are read from the Dockerfile.
Paths of the image are those below the folder of PREFIX; ports are free ones of this host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READY_TIMEOUT_S = 60
IMAGE_PREFIX = "/opt/pyrope"


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instructions of the last stage, with their arguments; continued lines are joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[last + 1 :]


def environment_of(found: list[tuple[str, str]], prefix: Path, config: Path) -> dict[str, str]:
    """What ENV sets, with the paths of this host for those of the image."""
    environment = {"PATH": os.defpath}
    for word, rest in found:
        if word != "ENV":
            continue
        for pair in rest.split():
            name, _, value = pair.partition("=")
            value = value.replace("$PATH", environment["PATH"])
            environment[name] = value.replace(IMAGE_PREFIX, str(prefix))
    copied = next(rest.split()[-1] for word, rest in found if word == "COPY" and "configs/" in rest)
    if environment["PYROPE_CONFIG"] != copied:
        raise SystemExit(f"PYROPE_CONFIG is not {copied}, which is where the file is copied to")
    environment["PYROPE_CONFIG"] = str(config)
    return environment


def argument(found: list[tuple[str, str]], word: str) -> str:
    """The argument of an instruction that is there once."""
    (rest,) = [rest for each, rest in found if each == word]
    return rest


def command(rest: str) -> list[str]:
    """A command in the exec form."""
    words: list[str] = json.loads(rest[rest.index("[") :])
    return words


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def is_healthy(check: list[str], environment: Mapping[str, str], data: Path) -> bool:
    done = subprocess.run(check, env=environment, cwd=data, capture_output=True, check=False)  # noqa: S603 - of the Dockerfile
    return done.returncode == 0


def is_for_everybody(prefix: Path) -> bool:
    """Whether another user may run what is there, and the interpreter that it needs."""
    paths = {prefix / "bin", Path(sys.executable).resolve()}
    return all(part.stat().st_mode & 0o001 for path in paths for part in (path, *path.parents))


def main(prefix: Path) -> int:
    """Returns the exit status. Nothing is left behind."""
    found = instructions((ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
    folder = Path(tempfile.mkdtemp(prefix="pyrope-image-"))
    folder.chmod(0o755)
    config, data = folder / "pyrope.toml", folder / "data"
    data.mkdir()
    shutil.copy(ROOT / "configs" / "container.toml", config)
    environment = environment_of(found, prefix, config)
    environment |= {
        "PYROPE_PORT": str(free_port()),
        "PYROPE_HTTP_PORT": str(free_port()),
        "PYROPE_DATA_DIR": str(data),
    }
    user, _, group = argument(found, "USER").partition(":")
    as_user = {}
    if os.geteuid() == 0 and not is_for_everybody(prefix):
        sys.stderr.write("the server runs as root: other users cannot run this Python\n")
    elif os.geteuid() == 0:
        os.chown(data, int(user), int(group))
        as_user = {"user": int(user), "group": int(group), "extra_groups": []}
    start = [*command(argument(found, "ENTRYPOINT")), *command(argument(found, "CMD"))]
    start[0] = str(prefix / "bin" / start[0])
    check = command(argument(found, "HEALTHCHECK"))
    check[0] = str(prefix / "bin" / check[0])
    try:
        server = subprocess.Popen(start, env=environment, cwd=data, **as_user)  # type: ignore[call-overload]  # noqa: S603 - likewise
        try:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while not is_healthy([*check, "--ready"], environment, data):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.stderr.write("the server did not get ready\n")
                    return 1
                time.sleep(0.1)
            if not is_healthy(check, environment, data):
                sys.stderr.write("the server is not healthy\n")
                return 1
            server.send_signal(signal.Signals[argument(found, "STOPSIGNAL")])
            status = server.wait(READY_TIMEOUT_S)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        if status or is_healthy(check, environment, data):
            sys.stderr.write(f"the server did not stop as it should (exit status {status})\n")
            return 1
        if not (data / "records.mdb").exists():
            sys.stderr.write("the server has kept nothing in its volume\n")
            return 1
    finally:
        shutil.rmtree(folder)
    sys.stderr.write("the image's steps work: built, started, healthy, drained\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
