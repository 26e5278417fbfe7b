"""What payments and transfers can be found by, as short tags of one size. Pure.

The read model keeps a row a tag, and lists are read along them, so who writes it and who reads it
must call a thing the same. A tag is a hash, so that no value is too long for an index; the parts
of one are kept apart by a character that none of them may hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

Kind = Literal["payment", "transfer"]


def account(kind: Kind, account_id: str) -> str:
    """Return the tag of what moves money on an account."""
    return _tag(kind, "account", account_id)


def reference(kind: Kind, text: str) -> str:
    """Return the tag of what carries a client's reference."""
    return _tag(kind, "reference", text)


def metadata(kind: Kind, name: str, value: str) -> str:
    """Return the tag of what carries a pair of metadata."""
    return _tag(kind, "metadata", name, value)


def of(kind: Kind, own_reference: str | None, pairs: Mapping[str, str]) -> set[str]:
    """Return the tags of what a client has said of its payment or transfer."""
    found = {metadata(kind, name, value) for name, value in pairs.items()}
    if own_reference is not None:
        found.add(reference(kind, own_reference))
    return found


def _tag(*parts: str) -> str:
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]
