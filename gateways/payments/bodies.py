"""What clients send, as types: msgspec decodes and checks in one pass. Pure.

Unknown fields are refused, integers are integers, every text and map is bounded. Patterns that
`rules` checks more cheaply are for the documentation only. Defaults are left
out of the canonical form (see `canonical`), so a field that is added later with a default changes
no hash.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.money import AMOUNT_MINOR_MAX

AccountId = Annotated[
    str,
    Meta(
        extra_json_schema={"pattern": "^acct_[ce][0-3][0-9a-f]{2}_[a-z2-7]{26}$"},
        min_length=36,
        max_length=36,
        description="An account's id, as POST /v1/accounts returned it",
    ),
]
AmountMinor = Annotated[
    int, Meta(ge=1, le=AMOUNT_MINOR_MAX, description="Minor units of the currency")
]
Currency = Annotated[
    str,
    Meta(
        extra_json_schema={"pattern": "^[A-Z]{3}$"},
        min_length=3,
        max_length=3,
        description="ISO 4217",
        examples=["EUR"],
    ),
]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40)],
        Annotated[str, Meta(max_length=500)],
    ],
    Meta(max_length=50, description="Your own pairs of text, at most 50"),
]
Context = Annotated[
    dict[
        Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$(?!\\n)", min_length=1, max_length=40)],
        Annotated[str, Meta(min_length=1, max_length=255)],
    ],
    Meta(
        max_length=20, description="What risk looks at: ip, device, card (a token, never a number)"
    ),
]
Description = Annotated[str, Meta(max_length=500, description="Free text for people")]
Reference = Annotated[str, Meta(max_length=140, description="Your own reference")]
IdempotencyKey = Annotated[
    str, Meta(min_length=1, max_length=255, description="The same on every retry of one request")
]
BalanceMinor = Annotated[int, Meta(ge=-AMOUNT_MINOR_MAX, le=AMOUNT_MINOR_MAX)]

BATCH_MAX: Final = 1_000
LEGS_MAX: Final = 64
EXPIRES_S_MAX: Final = 30 * 86_400


class Party(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One side of a payment."""

    account: AccountId


class PaymentBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """A payment to make."""

    amount: AmountMinor
    currency: Currency
    source: Party
    destination: Party
    capture: Literal["automatic", "manual"] = "automatic"
    expires_in: (
        Annotated[int, Meta(ge=1, le=EXPIRES_S_MAX, description="Seconds an authorization lives")]
        | None
    ) = None
    description: Description | None = None
    reference: Reference | None = None
    metadata: Metadata = {}
    context: Context = {}


class AmountBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How much to capture or refund; without an amount, all that is left."""

    amount: AmountMinor | None = None


class ReversalBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What to pay back: without a leg all of them, without an amount all that is left.

    Of a transfer of several legs, an amount needs its leg.
    """

    amount: AmountMinor | None = None
    leg: (
        Annotated[int, Meta(ge=0, lt=LEGS_MAX, description="Which leg, by its index from 0")] | None
    ) = None
    reference: Reference | None = None
    metadata: Metadata = {}


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Nothing to say."""


class FlagsBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Which side of the account; without any, both."""

    debits: bool = False
    credits: bool = False


class LegBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One movement of a transfer."""

    source: AccountId
    destination: AccountId
    amount: AmountMinor
    currency: Currency


class TransferBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Movements that are posted together or not at all."""

    legs: Annotated[list[LegBody], Meta(min_length=1, max_length=LEGS_MAX)]
    effective_at: (
        Annotated[str, Meta(max_length=40, extra_json_schema={"format": "date-time"})] | None
    ) = None
    reference: Reference | None = None
    metadata: Metadata = {}
    dry_run: bool = False


class BatchItem(
    PaymentBody, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """One payment of a batch, with its own key."""

    idempotency_key: IdempotencyKey


class BatchBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Payments to make, each for itself: one may fail and the others not."""

    payments: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_MAX)]


class AccountLimits(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """Bounds of the account's balance, in minor units."""

    min_balance: BalanceMinor | None = None
    max_balance: BalanceMinor | None = None


class AccountBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """An account to open."""

    currency: Currency
    kind: Annotated[
        Literal["customer", "external"],
        Meta(description="customer: never below its limit; external: money enters and leaves here"),
    ]
    limits: AccountLimits | None = None
    name: Annotated[str, Meta(max_length=140)] | None = None
    metadata: Metadata = {}
