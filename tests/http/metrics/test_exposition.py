"""/metrics: its formats, its names, who may read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from control import administering, asking, control_server, problem
from pyrope.http.metrics.collector import METRICS
from pyrope.http.metrics.metric import Kind
from pyrope.http.metrics.page import markdown
from scraping import families
from servers import RunningServer
from tenancy import PASSWORD, add, administrator, search, signed_in

ROOT = Path(__file__).parents[3]
BASE_UNITS = re.compile(r"_(seconds|bytes|ratio|total|info|queries|changes)$")
OPT_IN = ("pyrope_tenant_", "pyrope_index_")


@pytest.fixture
def used(control: RunningServer, wire: redis.Redis) -> RunningServer:
    """A server whose commands have been used."""
    wire.execute_command("VECTOR.CREATE", "books", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT")
    add(wire, "books", "a", 1, 0)
    for _ in range(3):
        search(wire, "books", 1, 0)
    with pytest.raises(redis.ResponseError):
        wire.execute_command("VECTOR.GET", "nothing", "a")
    return control


def test_every_metric_that_is_declared_is_told_and_no_other(used: RunningServer) -> None:
    with administering(used) as client:
        text = client.get("/metrics").text
    told = {name: one for name, one in families(text).items() if name.startswith("pyrope_")}
    declared = {
        one.name.removesuffix("_total") if one.kind is Kind.COUNTER else one.name: one
        for one in METRICS
        if not one.name.startswith(OPT_IN)
    }
    assert set(told) == set(declared)
    for name, one in declared.items():
        assert (told[name].type, told[name].documentation) == (one.kind.value, one.help)
        for sample in told[name].samples:
            assert set(sample.labels) - {"le"} == set(one.labels), sample
    assert "process_resident_memory_bytes" in families(text)


def test_names_follow_the_conventions_of_prometheus(used: RunningServer) -> None:
    names = [one.name for one in METRICS]
    assert len(names) == len(set(names))
    for one in METRICS:
        assert re.fullmatch(r"pyrope_[a-z]+(_[a-z0-9]+)*", one.name)
        assert one.name.endswith("_total") == (one.kind is Kind.COUNTER)
        assert one.help.endswith(".") or one.help.endswith(")"), one.name
        if one.kind is Kind.HISTOGRAM:
            assert BASE_UNITS.search(one.name)
    if shutil.which("promtool") is not None:
        with administering(used) as client:
            text = client.get("/metrics").text
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        # pyrope_build_info has no unit, and gauges of states none either: nothing else is said.
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;q=0.5", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=..", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_what_is_accepted(
    used: RunningServer, accept: str, content_type: str
) -> None:
    with administering(used) as client:
        response = client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert "# TYPE pyrope_cache_hits" in response.text
    assert response.text.endswith("# EOF\n") == ("openmetrics" in content_type)


def test_openmetrics_is_what_a_strict_parser_reads(used: RunningServer) -> None:
    with administering(used) as client:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        text = client.get("/metrics", headers=accept).text
    read = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # prometheus-client's
    found = {family.name for family in read}
    assert {"pyrope_commands", "pyrope_search_duration_seconds", "pyrope_build_info"} <= found


def test_numbers_of_all_tenants_are_the_administrators(
    used: RunningServer, wire: redis.Redis
) -> None:
    wire.execute_command("VECTOR.TENANT", "CREATE", "acme", "KEY", "k" * 20)
    with asking(used) as nobody, asking(used, "acme", "k" * 20) as acme:
        problem(nobody.get("/metrics"), 401, "NOAUTH")
        problem(acme.get("/metrics"), 403, "NOPERM")
    with asking(used, headers={"X-API-Key": PASSWORD}) as admin:
        assert admin.get("/metrics").status_code == 200
        assert admin.get("/metrics", params={"name[]": "up"}).status_code == 422


@pytest.mark.parametrize("access", ["local", "any"])
def test_a_setting_lets_those_in_who_have_not_signed_in(access: str) -> None:
    settings = {"admin_password": PASSWORD, "metrics": {"access": access}}
    with control_server(**settings) as server, asking(server) as nobody:
        assert nobody.get("/metrics").status_code == 200
        problem(nobody.get("/v1/indexes"), 401, "NOAUTH")


def test_names_of_tenants_and_indexes_are_not_told_unless_asked_for(
    used: RunningServer, wire: redis.Redis
) -> None:
    wire.execute_command("VECTOR.TENANT", "CREATE", "secretive", "KEY", "k" * 20)
    with signed_in(used, "secretive", "k" * 20) as tenant:
        tenant.execute_command("VECTOR.CREATE", "plans", "DIM", 2)
    with administering(used) as client:
        text = client.get("/metrics").text
    assert "secretive" not in text
    assert "plans" not in text


def test_a_scrape_while_the_server_is_used_is_whole(used: RunningServer) -> None:
    with administering(used) as client, administrator(used) as wire:
        for number in range(5):
            wire.execute_command("VECTOR.CREATE", f"i{number}", "DIM", 2)
            wire.execute_command("VECTOR.DROP", f"i{number}")
            assert "# TYPE pyrope_tracing_spans_total counter" in client.get("/metrics").text


def test_the_page_of_metrics_is_what_is_declared() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == markdown(), "run `make docs`"


def test_head_of_metrics_has_no_body(used: RunningServer) -> None:
    with administering(used) as client:
        response: httpx2.Response = client.head("/metrics")
    assert response.status_code == 405
