"""What every request passes: ids, pages of others, rates, lengths; and how errors are told."""

from __future__ import annotations

import contextlib
import json
import socket
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest

from control import administering, asking, control_server, problem
from pyrope.testing.clock import ManualClock
from servers import RunningServer, exchange
from tenancy import PASSWORD

JSON = {"Content-Type": "application/json"}


# -- request ids, headers, problems -------------------------------------------------------------


def test_a_request_id_is_taken_over_or_made(admin: httpx2.Client) -> None:
    given = admin.get("/v1/indexes", headers={"X-Request-Id": "trace-1:a/b"})
    assert given.headers["x-request-id"] == "trace-1:a/b"
    made = {admin.get("/v1/indexes").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("", "x" * 129, "a b", "a\tb", "é"):
        response = admin.get("/v1/indexes", headers={b"X-Request-Id": bad.encode("latin-1")})
        assert response.headers["x-request-id"] not in {bad, "trace-1:a/b"}
    refused = admin.get("/v1/indexes/none", headers={"X-Request-Id": "mine"})
    assert refused.json()["request_id"] == "mine"


def test_the_request_id_is_in_every_line_that_a_request_writes_to_the_log(
    admin: httpx2.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    admin.post("/v1/indexes", json={"name": "i", "dim": 2}, headers={"X-Request-Id": "log-1"})
    rows = {"centroids": [[1, 0], [0, 1]]}
    admin.put("/v1/clusters/i", json=rows, headers={"X-Request-Id": "log-2"})
    lines = capfd.readouterr().out.splitlines()
    created = [line for line in lines if "log-1" in line]
    assert len(created) == 1
    for word in ("method=POST", "path=/v1/indexes", "status=201", "user=admin"):
        assert word in created[0]
    # What is done in other tasks, for the request, carries it too.
    assert any("clusters changed" in line for line in lines if "log-2" in line)


def test_answers_have_a_date_and_tell_browsers_to_be_careful() -> None:
    clock = ManualClock()
    with control_server(clock=clock) as server, asking(server) as client:
        headers = client.get("/healthz").headers
    assert parsedate_to_datetime(headers["date"]).timestamp() == clock.wall()
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "server" not in headers


def test_what_is_not_there_is_a_problem_too(admin: httpx2.Client) -> None:
    problem(admin.get("/nothing"), 404, "ERR")
    problem(admin.get("/v1/indexes/"), 404, "ERR")
    wrong = admin.put("/v1/indexes", json={})
    problem(wrong, 405, "ERR")
    assert set(wrong.headers["allow"].split(", ")) <= {"GET", "POST"}


def test_bytes_that_are_no_http_are_a_problem_and_the_end(control: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", control.settings.http_port), 10) as connection:
        answer = exchange(connection, b"VECTOR.LIST\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "ERR"


def test_errors_are_counted_with_those_of_the_wire(
    control: RunningServer, admin: httpx2.Client
) -> None:
    def counted() -> int:
        with control.client(username="admin", password=PASSWORD) as client:
            found = client.info("errorstats").get("errorstat_NOINDEX", {"count": 0})
            return int(found["count"])

    before = counted()
    admin.get("/v1/indexes/none")
    assert counted() == before + 1


def test_requests_count_as_calls_of_their_commands(
    control: RunningServer, admin: httpx2.Client
) -> None:
    with control.client(username="admin", password=PASSWORD) as client:
        client.config_resetstat()
        admin.get("/v1/indexes")
        admin.post("/v1/tenants", json={"tenant": "acme"})
        admin.post("/v1/tenants", json={"tenant": "acme"})
        stats: dict[str, Any] = client.info("commandstats")
    assert stats["cmdstat_vector.list"]["calls"] == 1
    created = stats["cmdstat_vector.tenant|create"]
    assert (created["calls"], created["failed_calls"]) == (2, 1)


# -- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"name": "i", "dim": NaN}',
        b'{"name": "i", "dim": 2} trailing',
        b'{"name": "\xff", "dim": 2}',
        b'{"name": "\\ud800", "dim": 2}',
        b"[" * 3000,
        b"[" * 5000,
        b'{"a":' * 5000,
    ],
    ids=range(10),
)
def test_what_is_no_json_is_refused(admin: httpx2.Client, content: bytes) -> None:
    response = admin.post("/v1/indexes", content=content, headers=JSON)
    assert response.status_code in {400, 422}
    problem(response, response.status_code, "ERR")


@pytest.mark.parametrize(
    "body", [None, 1, "x", [], {}, {"name": "i", "dim": 2, "colour": "red"}, {"name": ["i"]}]
)
def test_other_types_and_unknown_members_are_refused(admin: httpx2.Client, body: Any) -> None:
    response = admin.post("/v1/indexes", content=json.dumps(body), headers=JSON)
    told = problem(response, 422, "ERR")
    assert told
    assert response.json()["errors"][0]["at"].startswith("body")


def test_many_mistakes_are_told_by_the_first_of_them(admin: httpx2.Client) -> None:
    body = {f"unknown-{number}": number for number in range(50)}
    response = admin.post("/v1/indexes", json=body)
    problem(response, 422, "ERR")
    assert len(response.json()["errors"]) == 20
    assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "body",
    [
        {f"m{number}": 0 for number in range(65)},
        {"name": {f"m{number}": 0 for number in range(65)}},
        {"name": [[]] * 5000},
        {"name": [0] * 140_000},
        {"name": ":" * 5000},
    ],
    ids=range(5),
)
def test_a_body_of_more_parts_than_any_command_has_is_refused(
    admin: httpx2.Client, body: Any
) -> None:
    response = admin.post("/v1/indexes", json=body)
    assert "more than 64 members" in response.text or "too many parts" in response.text
    problem(response, 400, "ERR")


def test_a_body_of_another_type_and_one_where_none_is_expected_are_refused(
    admin: httpx2.Client,
) -> None:
    content = json.dumps({"name": "i", "dim": 2})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        response = admin.post("/v1/indexes", content=content, headers={"Content-Type": kind})
        problem(response, 415, "ERR")
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert admin.post("/v1/indexes", content=content, headers=charset).status_code == 201
    problem(admin.post("/v1/indexes/i/build", content=b"{}", headers=JSON), 400, "ERR")


def test_unknown_query_parameters_are_refused(admin: httpx2.Client) -> None:
    told = problem(admin.get("/v1/indexes", params={"limits": 5}), 422, "ERR")
    assert "limits" in told


@pytest.mark.parametrize("encoding", ["length", "chunked"])
def test_a_body_beyond_the_limit_is_refused_before_it_is_read(encoding: str) -> None:
    limit = 4096
    settings = {"http": {"max_body_bytes": limit}}
    with control_server(**settings) as server, asking(server) as client:

        def post(size: int) -> httpx2.Response:
            padding = size - len(json.dumps({"name": "i", "dim": 2})) - len(', "cache": ""')
            body = json.dumps({"name": "i", "dim": 2, "cache": "x" * padding}).encode()
            assert len(body) == size
            parts = iter([body[:1000], body[1000:]]) if encoding == "chunked" else body
            return client.post("/v1/indexes", content=parts, headers=JSON)

        problem(post(limit + 1), 413, "ERR")
        # At the limit it is read, and is wrong for another reason.
        problem(post(limit), 422, "ERR")
        problem(post(100 * limit), 413, "ERR")
        assert client.get("/healthz").status_code == 200


def test_a_body_that_never_ends_is_not_kept() -> None:
    with control_server(http={"max_body_bytes": 4096}) as server:
        address = ("127.0.0.1", server.settings.http_port)
        with socket.create_connection(address, 10) as connection:
            connection.sendall(
                b"POST /v1/indexes HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
            answer = exchange(connection, 10 * chunk, replies=b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")
            connection.sendall(1000 * chunk)
        (kept,) = (c for c in server.run(_connections(server)) or [None])
        assert kept is None or len(kept.cycle.body) < 8 * 4096


async def _connections(server: RunningServer) -> list[Any]:
    plane: Any = server.pyrope._control_plane
    return list(plane._listener._connections())


# -- pages of others ----------------------------------------------------------------------------


def test_pages_of_other_origins_may_not_use_the_server(admin: httpx2.Client) -> None:
    own = str(admin.base_url).rstrip("/")
    assert admin.get("/v1/indexes", headers={"Origin": own}).status_code == 200
    for origin in ("https://evil.example", "null", own.replace("http:", "https:"), own + "0"):
        response = admin.post("/v1/cache/flush", headers={"Origin": origin})
        problem(response, 403, "DENIED")
        assert "access-control-allow-origin" not in response.headers


def test_cors_is_off_unless_origins_are_named() -> None:
    preflight = {
        "Origin": "https://ops.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "X-API-Key, If-Match",
    }
    with control_server() as server, asking(server) as client:
        problem(client.options("/v1/indexes/i", headers=preflight), 403, "DENIED")
    settings = {"http": {"cors_origins": "https://ops.example, https://other.example:8443"}}
    with control_server(**settings) as server, asking(server) as client:
        allowed = client.options("/v1/indexes/i", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://ops.example"
        answer = client.get("/v1/indexes", headers={"Origin": "https://other.example:8443"})
        assert answer.headers["access-control-allow-origin"] == "https://other.example:8443"
        assert "ETag" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        other = client.get("/v1/indexes", headers={"Origin": "https://evil.example"})
        problem(other, 403, "DENIED")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.x"])
def test_a_server_without_a_password_answers_to_no_name_of_others(host: str) -> None:
    with control_server() as server, asking(server) as client:
        port = server.settings.http_port
        for good in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "10.0.0.1"):
            assert client.get("/v1/indexes", headers={"Host": good}).status_code == 200
        problem(client.get("/v1/indexes", headers={"Host": host}), 403, "DENIED")
    with control_server(admin_password=PASSWORD) as server, administering(server) as client:
        assert client.get("/v1/indexes", headers={"Host": host}).status_code == 200


# -- rates and numbers --------------------------------------------------------------------------


def test_an_address_has_its_rate() -> None:
    clock = ManualClock()
    settings = {"http": {"requests_per_s": 4}}
    with control_server(clock=clock, **settings) as server, asking(server) as client:
        assert [client.get("/healthz").status_code for _ in range(4)] == [200] * 4
        refused = client.get("/v1/indexes")
        problem(refused, 429, "BUSY")
        assert refused.headers["retry-after"] == "1"
        clock.advance(0.25)
        assert client.get("/healthz").status_code == 200
        problem(client.get("/healthz"), 429, "BUSY")


def test_connections_beyond_the_limit_are_told_so() -> None:
    with control_server(http={"max_connections": 2}) as server:
        address = ("127.0.0.1", server.settings.http_port)
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with (
            socket.create_connection(address, 10) as first,
            socket.create_connection(address, 10) as second,
        ):
            assert b"200 OK" in exchange(first, request, replies=b"}")
            assert b"200 OK" in exchange(second, request, replies=b"}")
            with socket.create_connection(address, 10) as third:
                answer = exchange(third, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"BUSY" in answer


def test_who_leaves_a_request_half_sent_is_closed() -> None:
    clock = ManualClock()
    settings = {"limits": {"command_timeout_s": 60}}
    with control_server(clock=clock, **settings) as server:
        address = ("127.0.0.1", server.settings.http_port)
        halves = (
            b"",
            b"GET /healthz HTTP/1.1\r\nHo",
            (
                b"POST /v1/indexes HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            ),
        )
        for half in halves:
            with socket.create_connection(address, 10) as connection:
                connection.sendall(half)
                with asking(server) as client:  # it has arrived when this is answered
                    client.get("/healthz")
                server.run(_close_silent(server))
                clock.advance(59)
                server.run(_close_silent(server))
                connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
                with pytest.raises(BlockingIOError):
                    connection.recv(1)
                clock.advance(2)
                server.run(_close_silent(server))
                connection.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""


async def _close_silent(server: RunningServer) -> None:
    plane: Any = server.pyrope._control_plane
    plane._listener.close_silent()
