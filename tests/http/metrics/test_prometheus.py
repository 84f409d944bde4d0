"""A real Prometheus, with the rules that come with Pyrope; and the dashboard that asks it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from control import control_server
from pyrope.http.metrics.collector import METRICS
from pyrope.http.metrics.metric import Kind
from servers import RunningServer, free_port
from tenancy import PASSWORD, add, administrator, search

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "docker" / "prometheus"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "pyrope.json"
SUFFIXES = {
    Kind.COUNTER: ("",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum"),
}
KNOWN = {f"{one.name}{suffix}" for one in METRICS for suffix in SUFFIXES[one.kind]}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="Prometheus is not installed (Debian: prometheus)"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: prometheus)"
)


def promtool(*words: str) -> str:
    done = subprocess.run(
        ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_every_alert_goes_off_when_it_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


@needs_promtool
def test_the_rules_and_the_configuration_are_what_prometheus_reads() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_every_alert_has_a_test() -> None:
    rules = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    tried = (PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8")
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert len(alerts) > 8
    assert alerts == set(re.findall(r"alertname: (\w+)", tried))


def names_in(text: str) -> set[str]:
    """Metrics that a query names; not what it has recorded itself."""
    return set(re.findall(r"\bpyrope_[a-z0-9_]+", text))


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    text = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    rules = "\n".join(re.findall(r"expr: (.*?)(?=\n +(?:for|- record):|\Z)", text, re.DOTALL))
    dashboard = DASHBOARD.read_text(encoding="utf-8")
    assert len(names_in(rules)) > 15
    assert names_in(rules) <= KNOWN
    assert names_in(dashboard) <= KNOWN
    # What needs a setting to be told at all is of no use in a dashboard for everybody.
    assert not [name for name in names_in(dashboard) if "tenant_" in name and "budget" not in name]


def queries() -> list[str]:
    """All of the dashboard, as Grafana would send them."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "1m").replace("$instance", ".*") for one in found]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with control_server(admin_password=PASSWORD) as server:
        yield server


@pytest.fixture
def prometheus(server: RunningServer, tmp_path: Path) -> Iterator[httpx2.Client]:
    """A Prometheus that scrapes the server, with the configuration that comes with Pyrope."""
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    shipped = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    changed = (
        shipped.replace("/run/secrets/pyrope-password", str(tmp_path / "password"))
        .replace("pyrope:7380", f"127.0.0.1:{server.settings.http_port}")
        .replace("15s", "200ms")
        .replace("alerts.yml", str(PROMETHEUS / "alerts.yml"))
    )
    (tmp_path / "prometheus.yml").write_text(changed, encoding="utf-8")
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_for(lambda: is_ready(client))
            yield client
    finally:
        process.terminate()
        process.wait(20)


def is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


def wait_for(happened: Any) -> Any:
    """What it answers, once that is something."""
    until = time.monotonic() + 30
    while not (found := happened()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def ask(client: httpx2.Client, query: str) -> list[Any]:
    response = client.get("/api/v1/query", params={"query": query})
    told = response.json()
    assert told["status"] == "success", (query, told)
    assert "warnings" not in told, (query, told)
    result: list[Any] = told["data"]["result"]
    return result


@needs_prometheus
def test_prometheus_scrapes_a_server_and_answers_the_dashboard(
    server: RunningServer, prometheus: httpx2.Client
) -> None:
    with administrator(server) as wire:
        wire.execute_command("VECTOR.CREATE", "a", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT")
        add(wire, "a", "x", 1, 0)
        for _ in range(4):
            search(wire, "a", 1, 0)
    (target,) = wait_for(lambda: targets(prometheus))
    assert (target["health"], target["lastError"]) == ("up", "")
    hits = 'pyrope_cache_hits_total{level="exact"}'
    wait_for(lambda: [one for one in ask(prometheus, hits) if one["value"][1] == "3"])
    for query in queries():
        ask(prometheus, query)
    # Quantiles come out of the buckets: rates need two scrapes.
    p99 = "histogram_quantile(0.99, sum by (le) (pyrope_search_duration_seconds_bucket))"
    (sample,) = ask(prometheus, p99)
    assert 0 < float(sample["value"][1]) < 10
    rules = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    states = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
    assert set(states.values()) <= {"ok", "unknown"}, states
    (metadata,) = prometheus.get("/api/v1/metadata", params={"metric": "pyrope_vectors"}).json()[
        "data"
    ]["pyrope_vectors"]
    assert metadata["type"] == "gauge"


def targets(client: httpx2.Client) -> list[Any]:
    """Those that have been scraped."""
    found = client.get("/api/v1/targets").json()["data"]["activeTargets"]
    return [one for one in found if one["health"] != "unknown"]
