"""Who somebody is, once known."""

from __future__ import annotations

from dataclasses import dataclass

from pyrope.tenants.names import login_of
from pyrope.tenants.tenant import Role


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a connection or a request is. Made by `registry.TenantRegistry`.

    It lasts as long as the key that it was made with: `TenantRegistry.current` says whether it
    still counts.

    Attributes:
        tenant: the one whose indexes it sees; nothing names any other.
        user: the user's name within the tenant; None for the tenant's own key. Of the
            administrator, ``admin`` or ``default``.
        role: within the tenant.
        administrator: of the server; may move to any tenant.
        salt: of the key; empty where no key was needed.
        valid_until: Unix time in seconds at which the key expires; None: never.
        revision: of the registry, when this was last found true.
    """

    tenant: str
    user: str | None
    role: Role
    administrator: bool = False
    salt: bytes = b""
    valid_until: float | None = None
    revision: int = 0

    @property
    def name(self) -> str:
        """For ACL WHOAMI, logs and the audit trail: the word to sign in by."""
        if self.administrator and self.user is not None:
            return self.user
        return login_of(self.tenant, self.user)

    def may(self, role: Role) -> bool:
        """Whether it may do what takes a role, within its tenant."""
        return self.administrator or self.role.includes(role)

    def manages(self, tenant: str) -> bool:
        """Whether it may see a tenant's definition, and change its users and keys."""
        return self.administrator or (self.tenant == tenant and self.role.includes(Role.ADMIN))
