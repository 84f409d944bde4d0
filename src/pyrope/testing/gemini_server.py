"""A stand-in of Gemini's REST API.

https://ai.google.dev/api/generate-content and https://ai.google.dev/api/embeddings, as much of
them as google-genai uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrope.testing.http_server import HttpReply, HttpRequest
from pyrope.testing.provider_outcomes import Answer, Asked, NoCandidates, Problem, Refused
from pyrope.testing.provider_server import (
    Json,
    NotUnderstoodError,
    ProviderServer,
    json_reply,
    posted_json,
    retry_header,
)

_GOOGLE_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_GOOGLE_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "safety": "SAFETY"}

_GOOGLE_TYPES = "type.googleapis.com/google.rpc."


class GeminiServer(ProviderServer):
    """Gemini's REST API: `generateContent`, `embedContent` and `batchEmbedContents`.

    A wrong key is a 400 with the reason ``API_KEY_INVALID``, as from Gemini itself.
    """

    def understand(self, request: HttpRequest) -> Asked:
        path, _, verb = request.path.partition("?")[0].rpartition(":")
        version, _, model = path.removeprefix("/").partition("/models/")
        verbs = {"generateContent", "embedContent", "batchEmbedContents"}
        if verb not in verbs or not version.startswith("v1") or not model:
            raise NotUnderstoodError(404, f"there is no {request.path}")
        if self.key is not None and request.headers.get("x-goog-api-key") != self.key:
            if "x-goog-api-key" not in request.headers:
                raise NotUnderstoodError(403, "Method doesn't allow unregistered callers.")
            raise NotUnderstoodError(400, "API key not valid.", "API_KEY_INVALID")
        body = posted_json(request)
        if verb == "generateContent":
            return self._understand_chat(request, model, body)
        wanted = [body] if verb == "embedContent" else body.get("requests")
        if not wanted or not all(each.get("content") for each in wanted):
            raise NotUnderstoodError(400, "nothing to embed")
        return Asked(
            "embeddings",
            request.path,
            request.headers,
            body,
            model,
            texts=tuple(_text_of(each["content"]) for each in wanted),
            dim=wanted[0].get("outputDimensionality"),
        )

    @staticmethod
    def _understand_chat(request: HttpRequest, model: str, body: Json) -> Asked:
        config = body.get("generationConfig") or {}
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        if not body.get("contents"):
            raise NotUnderstoodError(400, "contents are required")
        if schema is not None and config.get("responseMimeType") != "application/json":
            raise NotUnderstoodError(400, "a schema needs the type application/json")
        return Asked(
            "chat",
            request.path,
            request.headers,
            body,
            model,
            system=_text_of(body.get("systemInstruction") or {}),
            user="".join(map(_text_of, body["contents"])),
            schema=schema,
            max_tokens_out=config.get("maxOutputTokens"),
        )

    def completion(self, asked: Asked, outcome: Answer | Refused | NoCandidates) -> Json:
        reply: Json = {"modelVersion": asked.model, "responseId": f"r{len(self.asked)}"}
        if not isinstance(outcome, Answer):
            count = self.count_in(asked, outcome.tokens_in)
            if isinstance(outcome, Refused):
                reply["promptFeedback"] = {"blockReason": outcome.reason}
            reply["usageMetadata"] = {"promptTokenCount": count, "totalTokenCount": count}
            return reply
        candidate: Json = {"index": 0, "finishReason": _GOOGLE_FINISH[outcome.finish]}
        if outcome.finish != "safety":
            candidate["content"] = {"role": "model", "parts": [{"text": outcome.text}]}
        reply["candidates"] = [candidate]
        if outcome.usage:
            count_in = self.count_in(asked, outcome.tokens_in)
            count_out = self.count_out(outcome)
            usage = reply["usageMetadata"] = {
                "promptTokenCount": count_in,
                "candidatesTokenCount": count_out,
                "totalTokenCount": count_in + count_out + outcome.tokens_thought,
            }
            if outcome.tokens_thought:
                usage["thoughtsTokenCount"] = outcome.tokens_thought
        return reply

    def embeddings(self, asked: Asked, rows: list[list[float]], tokens: int | None) -> Json:
        vectors = [{"values": row} for row in rows]
        single = ":embedContent" in asked.path
        reply: Json = {"embedding": vectors[0]} if single else {"embeddings": vectors}
        if tokens is not None:
            reply["usageMetadata"] = {"promptTokenCount": tokens, "totalTokenCount": tokens}
        return reply

    def error(self, problem: Problem) -> HttpReply:
        status = _GOOGLE_STATUS.get(problem.status, "UNKNOWN")
        error: Json = {"code": problem.status, "message": problem.message, "status": status}
        details: list[Json] = []
        if problem.code:
            details.append({"@type": _GOOGLE_TYPES + "ErrorInfo", "reason": problem.code})
        if problem.retry_info_s is not None:
            delay = f"{problem.retry_info_s:.9f}".rstrip("0").rstrip(".") + "s"
            details.append({"@type": _GOOGLE_TYPES + "RetryInfo", "retryDelay": delay})
        if details:
            error["details"] = details
        return json_reply({"error": error}, problem.status, retry_header(problem))


def _text_of(content: Mapping[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content.get("parts") or ())
