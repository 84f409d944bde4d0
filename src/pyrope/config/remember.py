"""Settings of remembered responses."""

from __future__ import annotations

from pyrope.config.fields import GIB, KIB, MIB, Group, Size, setting


class RememberSettings(Group):
    """What VECTOR.REMEMBER keeps, and VECTOR.RECALL may answer.

    What is said of an index here, its policy may say otherwise (VECTOR.CACHE POLICY).
    """

    max_bytes: Size = setting(
        GIB,
        "Memory for remembered responses of all indexes; past it those go that are worth least.",
        unit="bytes",
        runtime=True,
        ge=MIB,
        le=2**50,
    )
    tenant_bytes: Size = setting(
        0,
        "The same for those of each tenant; 0: as much as max_bytes has.",
        unit="bytes",
        runtime=True,
        ge=0,
        le=2**50,
    )
    prompt_bytes: Size = setting(
        64 * KIB, "Length of a prompt.", unit="bytes", runtime=True, ge=16, le=MIB
    )
    response_bytes: Size = setting(
        MIB, "Length of a response.", unit="bytes", runtime=True, ge=16, le=32 * MIB
    )
    scope_fields: int = setting(16, "Fields of a SCOPE.", runtime=True, ge=1, le=256)
    scope_bytes: Size = setting(
        4 * KIB,
        "Length of a SCOPE, fields and values together.",
        unit="bytes",
        runtime=True,
        ge=16,
        le=64 * KIB,
    )
    depends: int = setting(
        64, "Documents that a response may depend on.", runtime=True, ge=1, le=10_000
    )
    ttl_s: float = setting(
        0,
        "How long a response lives that comes without EX; 0: for ever.",
        unit="s",
        runtime=True,
        ge=0,
        le=315_360_000,
    )
    ttl_jitter: float = setting(
        0.1,
        "Share of such a life by which it may be shorter, at random, so that not all end at once; "
        "of one that came with EX, nothing.",
        runtime=True,
        ge=0,
        le=1,
    )
    max_error: float = setting(
        0.05,
        "Share of wrong answers to put up with, where neither MAXERROR nor THRESHOLD says.",
        runtime=True,
        ge=0,
        le=1,
    )
    candidates: int = setting(
        8, "Nearest prompts that are looked at for one that may answer.", ge=2, le=64
    )
    lease_max_ms: int = setting(
        60_000,
        "The longest LEASE: how long one is held, and waited for.",
        unit="ms",
        runtime=True,
        ge=1,
        le=3_600_000,
    )
    lease_callers: int = setting(
        1000,
        "Leases of one index that are held at a time, and callers that wait for one; one more is "
        "refused with BUSY.",
        runtime=True,
        ge=1,
        le=100_000,
    )
    blur_ms: float = setting(
        0,
        "Answers to VECTOR.RECALL leave at multiples of this after the question only, so that the "
        "time they take does not tell hits from misses; 0: at once.",
        unit="ms",
        runtime=True,
        ge=0,
        le=10_000,
    )
    verify: bool = setting(
        True,
        "Whether a language model, if there is one, is asked about prompts that are near one "
        "another and may or may not deserve the same response.",
        runtime=True,
    )
    audit_share: float = setting(
        0.02,
        "Share of answers to near prompts, which nobody has judged, that the model is asked about "
        "as well: how else would it be noticed that they are wrong.",
        runtime=True,
        ge=0,
        le=1,
    )
