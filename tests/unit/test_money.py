"""Money is integers in minor units, of known currencies, within bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import money
from schemas.errors import Rejected


@given(st.integers(1, money.AMOUNT_MINOR_MAX))
def test_an_amount_within_bounds_is_itself(amount):
    assert money.check_amount(amount) == amount


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=money.AMOUNT_MINOR_MAX + 1)))
def test_an_amount_out_of_bounds_names_the_field(amount):
    with pytest.raises(Rejected) as rejected:
        money.check_amount(amount, "/legs/0/amount")
    assert rejected.value.code == "amount_out_of_range"
    assert rejected.value.pointer == "/legs/0/amount"


@pytest.mark.parametrize("amount", [True, 1.0, "1", None])
def test_an_amount_is_an_integer_and_nothing_like_it(amount):
    with pytest.raises(Rejected, match="amount_invalid"):
        money.check_amount(amount)


@pytest.mark.parametrize("code", ["", "eur", "EURO", "XXX", "BTC"])
def test_an_unknown_currency_is_rejected(code):
    with pytest.raises(Rejected, match="currency_unknown"):
        money.check_currency(code)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(123456, "EUR", "1,234.56 EUR"), (-5, "EUR", "-0.05 EUR"), (1500, "JPY", "1,500 JPY")]
    + [(1234567, "KWD", "1,234.567 KWD"), (0, "USD", "0.00 USD")],
)
def test_people_read_amounts_with_the_currencys_own_digits(amount, currency, shown):
    assert money.format_minor(amount, currency) == shown


def test_every_currency_has_an_exponent_of_iso_4217():
    assert len(money.EXPONENTS) > 140
    assert set(money.EXPONENTS.values()) == {0, 2, 3}
    assert all(len(code) == 3 and code.isupper() for code in money.EXPONENTS)
