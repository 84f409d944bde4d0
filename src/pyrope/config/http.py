"""Settings of the control plane."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import field_validator

from pyrope.config.fields import KIB, MIB, Group, Size, setting


class HttpSettings(Group):
    """The control plane: HTTP on `http_port`, on the address of `host`.

    It takes `limits.command_timeout_s` for a request that is half sent, and `shutdown_timeout_s`
    for those under way when the server stops.
    """

    tls: bool = setting(
        False,
        "Whether it is HTTPS, with the certificate, and the wish for those of clients, of the "
        "group tls.",
    )
    cors_origins: str = setting(
        "",
        "Origins whose web pages may use it, such as https://ops.example, with commas between "
        "them; empty: its own pages only.",
    )
    max_body_bytes: Size = setting(
        MIB, "Length of the body of a request.", unit="bytes", ge=KIB, le=64 * MIB
    )
    max_connections: int = setting(
        1000, "Connections at a time; one more is told so and closed.", ge=1, le=100_000
    )
    requests_per_s: float = setting(
        200,
        "Requests a second from one address in the long run, and as many at once; 0: any number.",
        ge=0,
        le=1_000_000,
    )
    max_viewers: int = setting(
        50,
        "Dashboards of administrators that are open at a time, and as many of tenants; of one "
        "tenant, a fifth of them.",
        ge=1,
        le=10_000,
    )
    page_size: int = setting(
        100, "Items of a list that one answer holds, where the request does not say.", ge=1, le=1000
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in filter(None, value.split(",")):
            parts = urlsplit(origin.strip())
            if f"{parts.scheme}://{parts.netloc}" != origin.strip() or not parts.netloc:
                raise ValueError(
                    f"'{origin}' is no origin: a scheme and a host are expected, and a port where "
                    "it is not the usual one, as in https://ops.example"
                )
        return value

    @property
    def origins(self) -> frozenset[str]:
        """`cors_origins`, one by one."""
        return frozenset(one.strip() for one in self.cors_origins.split(",") if one.strip())
