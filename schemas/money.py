"""Money: integer minor units and an ISO 4217 code, nothing else.

Amounts are bounded so that any sum the ledger keeps fits a signed 64-bit integer with room to
spare. Source of codes and exponents: ISO 4217:2015 list one (active currencies).
"""

from __future__ import annotations

from typing import Final

from schemas.errors import Rejected

AMOUNT_MINOR_MAX: Final = 10**15
"""The largest amount of one movement; 9,000 of them still fit in an int64 balance."""

_EXPONENT_0 = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_EXPONENT_2 = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP "
    "BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
    "GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT "
    "LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN "
    "NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED "
    "VES WST XCD YER ZAR ZMW ZWG"
)
_EXPONENT_3 = "BHD IQD JOD KWD LYD OMR TND"

EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(_EXPONENT_0.split(), 0),
    **dict.fromkeys(_EXPONENT_2.split(), 2),
    **dict.fromkeys(_EXPONENT_3.split(), 3),
}
"""Active ISO 4217 codes and how many decimal digits their minor unit stands for."""


def check_currency(code: str, pointer: str = "/currency") -> str:
    """Return `code`, or raise Rejected when it is not an active ISO 4217 code."""
    if code not in EXPONENTS:
        raise Rejected("currency_unknown", f"{code!r} is not an active ISO 4217 code", pointer)
    return code


def check_amount(amount_minor: int, pointer: str = "/amount") -> int:
    """Return `amount_minor`, or raise Rejected unless it lies in 1..AMOUNT_MINOR_MAX."""
    if isinstance(amount_minor, bool) or not isinstance(amount_minor, int):
        raise Rejected("amount_invalid", "must be an integer in minor units", pointer)
    if not 1 <= amount_minor <= AMOUNT_MINOR_MAX:
        raise Rejected("amount_out_of_range", f"must lie in 1..{AMOUNT_MINOR_MAX}", pointer)
    return amount_minor


def format_minor(amount_minor: int, currency: str) -> str:
    """Show an amount to people: `format_minor(123456, "EUR") == "1,234.56 EUR"`."""
    exponent = EXPONENTS[currency]
    sign = "-" if amount_minor < 0 else ""
    whole, part = divmod(abs(amount_minor), 10**exponent)
    digits = f".{part:0{exponent}d}" if exponent else ""
    return f"{sign}{whole:,}{digits} {currency}"
