"""The secrets of one stack: generated once into its folder, readable by its owner only.

Services get what they need of them and no more: the gateways' key file holds hashes. Never
prints or logs a secret.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.local.roles import ROLES, SUPERUSER

if TYPE_CHECKING:
    from pathlib import Path

API_KEY_ID = "demo"
SOURCE = "demo"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Passwords by database role, the demo API key, and the demo webhook source's secret."""

    passwords: dict[str, str]
    api_key: str
    webhook_secret: str


def load_or_create(path: Path) -> Credentials:
    """The credentials kept in this file, or new ones written to it."""
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        kept = {}
    passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, *ROLES)}
    found = Credentials(
        passwords=passwords | kept.get("passwords", {}),
        api_key=kept.get("api_key") or f"hr_{secrets.token_urlsafe(32)}",
        webhook_secret=kept.get("webhook_secret") or _webhook_secret(),
    )
    now = {
        "passwords": found.passwords,
        "api_key": found.api_key,
        "webhook_secret": found.webhook_secret,
    }
    if now != kept:
        write_private(path, now)
    return found


def api_keys(credentials: Credentials) -> dict[str, Any]:
    """What gateways read: the hash of each key, its tenant and scopes."""
    digest = hashlib.sha256(credentials.api_key.encode()).hexdigest()
    key = {"id": API_KEY_ID, "sha256": digest, "tenant": "demo", "scopes": ["*"]}
    return {"keys": [key]}


def webhook_sources(credentials: Credentials) -> dict[str, Any]:
    """What gateways read: the scheme of each webhook source and its secrets with their validity."""
    secret = {
        "id": "s1",
        "secret": credentials.webhook_secret,
        "not_before": None,
        "not_after": None,
    }
    return {"sources": {SOURCE: {"scheme": "standard-webhooks", "secrets": [secret]}}}


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file in one step; only its owner may read it, at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    new.replace(path)


def _webhook_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
