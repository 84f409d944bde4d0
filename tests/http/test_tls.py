"""HTTPS, and certificates of clients."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest

from control import control_server
from servers import RunningServer


def client(server: RunningServer, context: ssl.SSLContext) -> httpx2.Client:
    address = f"https://127.0.0.1:{server.settings.http_port}"
    return httpx2.Client(base_url=address, verify=context, trust_env=False)


def test_https_takes_the_certificate_of_the_wire(certificates: Path) -> None:
    tls = {
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
    }
    trusting = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    with control_server(tls=tls, http={"tls": True}) as server:
        assert server.pyrope.server.listening[-1].startswith("https://127.0.0.1:")
        with client(server, trusting) as http:
            assert http.get("/healthz").status_code == 200
            own = str(http.base_url).rstrip("/")
            assert http.get("/v1/indexes", headers={"Origin": own}).status_code == 200
        with (
            client(server, ssl.create_default_context()) as http,
            pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            http.get("/healthz")
        old = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with client(server, old) as http, pytest.raises(httpx2.ConnectError):
            http.get("/healthz")


def test_https_can_insist_on_a_clients_certificate(certificates: Path) -> None:
    tls = {
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
        "ca_file": certificates / "ca.crt",
        "auth_clients": "yes",
    }
    with control_server(tls=tls, http={"tls": True}) as server:
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        with client(server, context) as http, pytest.raises(httpx2.TransportError):
            http.get("/healthz")
        context.load_cert_chain(certificates / "client.crt", certificates / "client.key")
        with client(server, context) as http:
            assert http.get("/healthz").status_code == 200
