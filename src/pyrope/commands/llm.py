"""VECTOR.LLM: the language model that advises the caches, for whoever runs the server."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from pyrope.commands.context import Context, Server
from pyrope.commands.spec import Access, Argument, Command
from pyrope.errors import CommandError
from pyrope.resp.values import OK
from pyrope.service.audit import Actor

GROUP = "llm"
_JOBS, _JOBS_MAX = 20, 1000


def describe(server: Server) -> dict[str, Any]:
    """The worker as STATUS and INFO show it; of a server that asks nobody, all is 0 or empty."""
    advisor = server.service.advisor
    if advisor is None:
        return dict.fromkeys(_NUMBERS, 0) | {
            "enabled": 0,
            "provider": server.settings.llm.provider,
            "model": "",
            "state": "off",
            "cost": 0.0,
            "month_cost": 0.0,
            "last_error": "",
        }
    told = advisor.describe()
    return {name: int(value) if isinstance(value, bool) else value for name, value in told.items()}


_NUMBERS = (
    "enabled", "provider", "model", "state", "queued", "queued_bytes", "running", "succeeded",
    "failed", "retried", "repaired", "dropped", "rate_limited", "budget_dropped", "calls",
    "tokens_in", "tokens_out", "cost", "month_tokens", "month_cost",
)  # fmt: skip
"""Names, in their order."""


def status(context: Context, args: list[bytes]) -> dict[str, Any]:
    return describe(context.server)


def jobs(context: Context, args: list[bytes]) -> list[dict[str, Any]]:
    count = _JOBS
    if len(args) > 3:
        raise CommandError("syntax error: one number of jobs is expected")
    if len(args) > 2:
        try:
            count = int(args[2])
        except ValueError:
            raise CommandError("invalid number of jobs: an integer is expected") from None
        if not 1 <= count <= _JOBS_MAX:
            raise CommandError(f"invalid number of jobs: 1 to {_JOBS_MAX} are expected")
    advisor = context.server.service.advisor
    return [] if advisor is None else advisor.jobs(count)


def pause(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    return _switched(context, context.actor, "llm.pause")


def resume(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    return _switched(context, context.actor, "llm.resume")


async def _switched(context: Context, actor: Actor, act: str) -> Any:
    service = context.server.service
    advisor = service.advisor
    if advisor is None:
        raise CommandError("no language model is asked: llm.provider is off")
    async with service.tenancy.audit.act(actor, act, "", "llm"):
        if act == "llm.pause":
            advisor.pause()
        else:
            advisor.resume()
    return OK


_ADMIN = frozenset({"admin"})
_CATEGORIES = frozenset({"admin", "slow", "dangerous"})
_COUNT = Argument("count", "integer", optional=True)

COMMANDS = (
    Command(
        "VECTOR.LLM", -2, None,
        "A container for commands about the language model that advises the caches.", GROUP,
        categories=frozenset({"slow"}),
        subcommands={
            "STATUS": Command(
                "VECTOR.LLM|STATUS", 2, status,
                "Shows what the worker that asks the language model does and has done, for all "
                "tenants together.",
                GROUP, access=Access.NONE, flags=_ADMIN, categories=_CATEGORIES,
                returns="map: enabled, provider, model, state (off, idle, running, paused, "
                "throttled, open, stopped), queued, running, succeeded, failed, retried, dropped, "
                "rate_limited, budget_dropped, tokens_in, tokens_out, cost, last_error and others",
            ),
            "PAUSE": Command(
                "VECTOR.LLM|PAUSE", 2, pause,
                "Stops asking the language model; questions wait.",
                GROUP, access=Access.NONE, flags=_ADMIN, categories=_CATEGORIES, returns="OK",
            ),
            "RESUME": Command(
                "VECTOR.LLM|RESUME", 2, resume, "Asks the language model again.",
                GROUP, access=Access.NONE, flags=_ADMIN, categories=_CATEGORIES, returns="OK",
            ),
            "JOBS": Command(
                "VECTOR.LLM|JOBS", -2, jobs,
                "Lists the questions that wait or are being asked, without their texts.",
                GROUP, access=Access.NONE, flags=_ADMIN, categories=_CATEGORIES,
                arguments=(_COUNT,), complexity="O(N log N) in questions",
                returns="array of maps: kind, tenant, value, age (seconds), attempts, state",
            ),
        },
    ),
)  # fmt: skip
