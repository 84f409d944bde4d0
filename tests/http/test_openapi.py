"""/openapi.json is true: requests made from it are answered as it says."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from control import asking, control_server
from pyrope.commands.table import build_table
from servers import RunningServer
from tenancy import PASSWORD

# Not whether what fits the types is taken: ranges and rules are the commands', and depend on
# settings and on what there is.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)


@pytest.fixture(scope="module")
def described() -> Iterator[RunningServer]:
    """A server that others do not have to find empty."""
    with control_server(admin_password=PASSWORD, http={"requests_per_s": 0}) as server:
        yield server


@pytest.fixture(scope="module")
def document(described: RunningServer) -> Any:
    with asking(described) as client:
        return client.get("/openapi.json").json()


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_says_what_it_takes_and_what_it_may_answer(document: Any) -> None:
    table = build_table()
    for path, method, operation in operations(document):
        answers = operation["responses"]
        if path in {"/healthz", "/readyz"}:
            assert "security" not in operation
            continue
        assert operation["security"], (method, path)
        assert {"400", "401", "403", "422", "429", "503"} <= answers.keys()
        assert any(status.startswith("2") for status in answers)
        assert operation["x-rank"] in {0, 1, 2}
        if "x-command" in operation:
            parent, _, word = operation["x-command"].partition("|")
            command = table[parent.encode()]
            command = command.subcommands[word] if word else command
            assert operation["x-rank"] == command.rank
            assert f"`{command.name.replace('|', ' ')}`" in operation["description"]
        for status, answer in answers.items():
            if not status.startswith("2"):
                assert list(answer["content"]) == ["application/problem+json"]


def test_everything_that_the_commands_administer_has_a_route(document: Any) -> None:
    routed = {operation.get("x-command") for *_, operation in operations(document)}
    administered = set()
    for command in build_table().values():
        if command.name in {"VECTOR.CACHE", "VECTOR.ALIAS", "VECTOR.CLUSTER", "VECTOR.TENANT"}:
            administered |= {
                one.name for word, one in command.subcommands.items() if word != "HELP"
            }
        elif command.group == "vector" and command.name in {
            "VECTOR.CREATE", "VECTOR.ALTER", "VECTOR.DROP", "VECTOR.LIST", "VECTOR.INFO",
            "VECTOR.BUILD", "VECTOR.SEARCH",
        }:  # fmt: skip
            administered.add(command.name)
    assert administered <= routed


def test_the_pages_load_nothing_from_elsewhere(described: RunningServer) -> None:
    with asking(described) as client:
        page = client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert set(loaded) == {"docs.css", "docs.js", "openapi.json"}
        for name in loaded:
            found = client.get(f"/{name}")
            assert found.status_code == 200
            # The policy of the page lets nothing else through.
            assert "default-src 'self'" in found.headers["content-security-policy"]
        for text in (page.text, client.get("/docs.js").text, client.get("/docs.css").text):
            assert not re.search(r"https?://|@import|innerHTML", text)
        assert client.get("/openapi.json").content == client.get("/openapi.json").content


# -- requests made from it ----------------------------------------------------------------------


def _filled(control: RunningServer) -> None:
    with control.client(username="admin", password=PASSWORD) as wire:
        wire.execute_command("VECTOR.CREATE", "films", "DIM", 3, "NX")
        for number in range(5):
            wire.execute_command("VECTOR.ADD", "films", f"v{number}", "VALUES", 3, 1, number, 0)
        wire.execute_command("VECTOR.ALIAS", "SET", "films", "an alias", "canonical")
        for words in (("CREATE", "acme"), ("USER", "ADD", "acme", "bob", "ROLE", "reader")):
            with contextlib.suppress(redis.ResponseError):  # it is there already
                wire.execute_command("VECTOR.TENANT", *words, "KEY", "k" * 20)


NAMES = {"index": "films", "name": "acme", "user": "bob"}


@pytest.fixture(scope="module")
def schema(described: RunningServer) -> Any:
    _filled(described)
    address = f"http://127.0.0.1:{described.settings.http_port}/openapi.json"
    return schemathesis.openapi.from_url(address)


@pytest.mark.timeout(120)
def test_answers_are_what_the_description_says_whatever_is_asked(
    described: RunningServer, schema: Any
) -> None:
    seen: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            if operation.path in {"/healthz", "/readyz"} and mode is GenerationMode.NEGATIVE:
                continue  # they take nothing that could be wrong
            ask_for(operation, mode, seen.setdefault(operation.label, set()))
            # Something may have dropped what the next ones name.
            _filled(described)
    statuses = {status for found in seen.values() for status in found}
    assert all(status < 500 or status == 503 for status in statuses)
    # It is not all refusals: what there is, is told of.
    assert {label for label, found in seen.items() if 200 in found} >= {
        "GET /v1/indexes",
        "GET /v1/indexes/{index}",
        "GET /v1/cache/{index}/policy",
        "GET /v1/tenants/{name}",
        "GET /v1/audit",
        "GET /healthz",
    }


GOOD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("/v1/search", "POST", {"body": {"index": "films", "vector": [1, 0.5, 0], "filter": ".a > 1"}}),
    ("/v1/search", "POST", {"body": {"index": "films", "id": "v1", "truth": True, "cache": "OFF"}}),
    (
        "/v1/indexes",
        "POST",
        {"body": {"name": "made", "dim": 2, "nlist": "AUTO", "type": "IVF_PQ"}},
    ),
    ("/v1/cache/{index}/policy", "PATCH", {"body": {"levels": "ALL", "minrecall": 0.5}}),
    ("/v1/aliases/{index}/entry", "GET", {"query": {"alias": "an alias"}}),
    ("/v1/aliases/{index}", "POST", {"body": {"alias": "b", "canonical": {"vector": [1, 2, 3]}}}),
    ("/v1/aliases/{index}", "GET", {}),
    ("/v1/clusters/{index}/nearest", "POST", {"body": {"id": "v1"}}),
    ("/v1/clusters/{index}/ttl", "POST", {"body": {"vector": [0, 1, 0]}}),
    ("/v1/clusters/{index}", "PUT", {"body": {"centroids": [[1, 0, 0], [0, 1, 0]]}}),
    ("/v1/clusters/{index}", "GET", {}),
    ("/v1/llm", "GET", {}),
    ("/v1/llm/jobs", "GET", {"query": {"limit": 5}}),
    ("/v1/tenants/{name}", "PATCH", {"body": {"qps": 1.5, "budget": None, "priority": "LOW"}}),
    ("/v1/tenants/{name}/rotate", "POST", {"body": {"overlap": 5}}),
    ("/v1/tenants/{name}/users", "POST", {"body": {"user": "eve", "role": "operator"}}),
)


@pytest.mark.parametrize(("path", "method", "parts"), GOOD)
def test_what_is_well_asked_is_answered_as_the_description_says(
    described: RunningServer, schema: Any, path: str, method: str, parts: dict[str, Any]
) -> None:
    _filled(described)
    given = {name: value for name, value in NAMES.items() if f"{{{name}}}" in path}
    case = schema[path][method].Case(path_parameters=given, **parts)
    response = case.call(auth=("admin", PASSWORD))
    assert response.status_code < 300, response.text
    case.validate_response(response, checks=list(CHECKS[:5]))


def ask_for(operation: Any, mode: GenerationMode, statuses: set[int]) -> None:
    """Send requests that fit the description of an operation, or some that do not."""

    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            _name_what_is_there(case)
        response = case.call(auth=("admin", PASSWORD))
        statuses.add(response.status_code)
        case.validate_response(response, checks=list(CHECKS))

    ask()


def _name_what_is_there(case: Any) -> None:
    """Most names are of what there is: others are not found, and that is all."""
    for name, there in NAMES.items():
        if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 4:
            case.path_parameters[name] = there
    (case.query or {}).pop("tenant", None)
    if isinstance(case.body, dict) and "index" in case.body:
        case.body["index"] = NAMES["index"]
