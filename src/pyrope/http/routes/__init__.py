"""The routes, by what they are about. Each module has a `router`."""

from __future__ import annotations

from fastapi import APIRouter

from pyrope.http.routes import (
    aliases,
    audit,
    billing,
    cache,
    clusters,
    dashboard,
    docs,
    health,
    indexes,
    llm,
    metrics,
    search,
    tenants,
)

ROUTERS: tuple[APIRouter, ...] = (
    indexes.router,
    search.router,
    cache.router,
    aliases.router,
    clusters.router,
    tenants.router,
    llm.router,
    billing.router,
    audit.router,
    health.router,
    metrics.router,
    dashboard.router,
    dashboard.pages,
    docs.router,
)
