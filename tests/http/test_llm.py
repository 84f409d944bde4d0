"""/v1/llm."""

from __future__ import annotations

import httpx2
import redis

from control import administering, control_server, problem
from pyrope.testing.provider_servers import OpenAIServer
from stand_ins import on_its_own_loop
from tenancy import PASSWORD, as_map


def test_without_a_language_model_there_is_nothing_to_pause(admin: httpx2.Client) -> None:
    told = admin.get("/v1/llm").json()
    assert (told["enabled"], told["state"], told["queued"]) == (0, "off", 0)
    assert admin.get("/v1/llm/jobs").json() == {"items": []}
    assert "llm.provider is off" in problem(admin.post("/v1/llm/pause"), 400, "ERR")


def test_the_worker_is_seen_paused_and_resumed_as_on_the_wire() -> None:
    with (
        on_its_own_loop(OpenAIServer()) as provider,
        control_server(
            admin_password=PASSWORD,
            llm={"provider": "openai", "model": "m", "base_url": provider.base_url, "api_key": "k"},
        ) as server,
        administering(server) as admin,
        server.client(username="admin", password=PASSWORD) as wire,
    ):
        while status_of(wire)["state"] != b"idle":
            pass  # its client is being imported
        assert admin.post("/v1/llm/pause").status_code == 204
        assert status_of(wire)["state"] == b"paused"
        assert admin.get("/v1/llm").json()["state"] == "paused"
        assert admin.get("/v1/llm").json().keys() == status_of(wire).keys()
        assert admin.post("/v1/llm/resume").status_code == 204
        assert status_of(wire)["state"] == b"idle"
        acts = [entry["act"] for entry in admin.get("/v1/audit").json()["items"]]
        assert acts[:2] == ["llm.resume", "llm.pause"]


def status_of(wire: redis.Redis) -> dict[str, object]:
    return as_map(wire.execute_command("VECTOR.LLM", "STATUS"))
