"""The unit for systemd: verified by systemd where it is, hardened, in tune with its settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "pyrope.service"


def settings() -> dict[str, str]:
    """Of the unit, by name; the last of several."""
    pairs = re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(pairs)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/pyrope/bin/pyrope", "/bin/true"))
    return path


def test_systemd_finds_nothing_wrong(installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_it_hardened(installed: Path) -> None:
    """Exposure is from 0 to 10; services as they are usually written have 9 and more."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(installed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_may_write_where_its_settings_say_and_has_the_time_that_they_need() -> None:
    unit = settings()
    config = tomllib.loads((ROOT / "configs" / "server.toml").read_text(encoding="utf-8"))
    assert config["data_dir"] == f"/var/lib/{unit['StateDirectory']}"
    assert config["unixsocket"].startswith(f"/run/{unit['RuntimeDirectory']}/")
    assert int(unit["TimeoutStopSec"]) > 2 * config["shutdown_timeout_s"]
    assert unit["ProtectSystem"] == "strict"
    # Two descriptors for an index, one for a client.
    assert int(unit["LimitNOFILE"]) >= 2 * 100_000 + config["limits"]["max_clients"]
