"""The description of the interface: valid, complete, and what the gateway really answers."""

from __future__ import annotations

import asyncio
import json
import random
import re
from html.parser import HTMLParser

import openapi_spec_validator
import pytest
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource

from gateways.problems import KINDS
from tests.contract.test_http_operations import shown_account
from tests.contract.test_http_search import held, kept
from tests.contract.test_http_statements import history
from tests.contract.test_http_transfers import posted
from tests.unit.gateway_rig import ALICE, TENANT, payment, running, until

CONTRACT = {
    ("post", "/v1/accounts"),
    ("get", "/v1/accounts/{id}"),
    ("get", "/v1/accounts/{id}/entries"),
    ("get", "/v1/accounts/{id}/balance"),
    ("get", "/v1/accounts/{id}/holds"),
    ("post", "/v1/accounts/{id}/freeze"),
    ("post", "/v1/accounts/{id}/unfreeze"),
    ("post", "/v1/accounts/{id}/close"),
    ("post", "/v1/transfers"),
    ("get", "/v1/transfers"),
    ("get", "/v1/transfers/{id}"),
    ("post", "/v1/transfers/{id}/reversals"),
    ("post", "/v1/payments/{id}/capture"),
    ("post", "/v1/payments/{id}/void"),
    ("post", "/v1/payments/{id}/refunds"),
    ("post", "/v1/payments"),
    ("post", "/v1/payments/batch"),
    ("get", "/v1/payments/{id}"),
    ("get", "/v1/payments"),
    ("post", "/v1/webhooks/{source}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/docs"),
}


@pytest.fixture
async def rig():
    async with running() as rig:
        yield rig


async def described(rig):
    got = await rig.call("GET", "/openapi.json", key=None)
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    return got.json


def check(document, got, path, method):
    """Check an answer against the schema that the document gives for its route and status."""
    answer = document["paths"][path][method]["responses"][str(got.status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    ((media_type, content),) = answer["content"].items()
    assert got.headers["content-type"].startswith(media_type)
    registry = Registry().with_resource("urn:doc", Resource.opaque(document))
    schema = json.loads(json.dumps(content["schema"]).replace("#/", "urn:doc#/"))
    OAS31Validator(schema, registry=registry).validate(got.json)


async def test_the_document_is_valid_openapi_3_1(rig):
    document = await described(rig)
    assert document["openapi"].startswith("3.1")
    openapi_spec_validator.validate(document)


async def test_every_route_is_in_it_and_no_other(rig):
    document = await described(rig)
    routes = {(m, path) for path, methods in document["paths"].items() for m in methods}
    assert routes == CONTRACT


async def test_what_creates_needs_a_key_and_an_idempotency_key(rig):
    document = await described(rig)
    posts = [path for method, path in CONTRACT if method == "post"]
    for path in sorted({*posts} - {"/v1/webhooks/{source}", "/v1/payments/batch"}):
        operation = document["paths"][path]["post"]
        assert operation["security"] == [{"key": []}]
        (key,) = [p for p in operation["parameters"] if p["name"] == "Idempotency-Key"]
        assert key["required"] is True
    assert "security" not in document["paths"]["/v1/webhooks/{source}"]["post"]


async def test_the_payments_schema_holds_the_bounds_that_are_checked(rig):
    schema = (await described(rig))["components"]["schemas"]["PaymentBody"]
    assert schema["properties"]["amount"]["minimum"] == 1
    assert schema["properties"]["amount"]["maximum"] == 10**15
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"amount", "currency", "source", "destination"}


async def test_real_answers_fit_the_document(rig):
    document = await described(rig)
    waiting = asyncio.create_task(rig.pay("w", Prefer="wait=10"))
    await until(rig.written)
    rig.reply(rig.written()[0], "rejected", reason="insufficient_funds")
    decided, made = await waiting, await rig.pay("k")
    account = {"currency": "EUR", "kind": "customer"}
    opened = await rig.call(
        "POST", "/v1/accounts", account, Idempotency_Key="a", Prefer="wait=0"
    )  # fmt: skip
    items = {"payments": [payment() | {"idempotency_key": "b"}, {"amount": 0}]}
    cases = [
        (decided, 201, "/v1/payments", "post"),
        (made, 202, "/v1/payments", "post"),
        (await rig.pay("w", Prefer="wait=1"), 200, "/v1/payments", "post"),
        (await rig.pay("k", payment(amount=2)), 422, "/v1/payments", "post"),
        (await rig.pay("x", {"amount": 0}), 422, "/v1/payments", "post"),
        (await rig.call("POST", "/v1/payments"), 411, "/v1/payments", "post"),
        (await rig.call("GET", made.headers["location"]), 200, "/v1/payments/{id}", "get"),
        (await rig.call("GET", "/v1/payments/pay_1"), 404, "/v1/payments/{id}", "get"),
        (await rig.call("GET", "/v1/payments"), 200, "/v1/payments", "get"),
        (await rig.call("GET", "/v1/payments?limit=0"), 400, "/v1/payments", "get"),
        (await rig.call("GET", "/v1/payments", key=None), 401, "/v1/payments", "get"),
        (opened, 202, "/v1/accounts", "post"),
        (await rig.call("POST", "/v1/payments/batch", items), 202, "/v1/payments/batch", "post"),
        (await rig.call("POST", "/v1/webhooks/demo", b"x", key=None), 401, "/v1/webhooks/{source}",
         "post"),
        (await rig.call("GET", "/readyz", key=None), 200, "/readyz", "get"),
    ]  # fmt: skip
    for got, status, path, method in cases:
        assert got.status == status, got
        check(document, got, path, method)


async def test_real_answers_of_the_ledgers_routes_fit_the_document(rig):
    document = await described(rig)
    rig.views.show_account(TENANT, shown_account())
    rig.views.show_entries(ALICE, history(random.Random(1), 5))
    rig.views.show_hold(ALICE, held(1))
    rig.views.show_transfer(TENANT, kept("k"))
    paid = (await rig.pay("p", payment(capture="manual"))).json["id"]
    account, one = f"/v1/accounts/{ALICE}", f"/v1/payments/{paid}"
    moved = await posted(rig)
    there, back = f"/v1/transfers/{moved.json['id']}", f"/v1/transfers/{moved.json['id']}/reversals"
    later = {"Prefer": "wait=0"}
    cases = [(moved, 201, "/v1/transfers", "post")]
    for n, (method, path, status, route) in enumerate((
        ("POST", f"{one}/capture", 202, "/v1/payments/{id}/capture"),
        ("POST", f"{one}/void", 202, "/v1/payments/{id}/void"),
        ("POST", f"{one}/refunds", 202, "/v1/payments/{id}/refunds"),
        ("POST", "/v1/payments/pay_1/refunds", 404, "/v1/payments/{id}/refunds"),
        ("POST", f"{account}/freeze", 202, "/v1/accounts/{id}/freeze"),
        ("POST", f"{account}/unfreeze", 202, "/v1/accounts/{id}/unfreeze"),
        ("POST", f"{account}/close", 202, "/v1/accounts/{id}/close"),
        ("GET", account, 200, "/v1/accounts/{id}"),
        ("GET", f"{account}/entries?limit=3", 200, "/v1/accounts/{id}/entries"),
        ("GET", f"{account}/entries?limit=x", 400, "/v1/accounts/{id}/entries"),
        ("GET", f"{account}/balance", 200, "/v1/accounts/{id}/balance"),
        ("GET", f"{account}/holds", 200, "/v1/accounts/{id}/holds"),
        ("GET", f"{account}/holds?x=1", 400, "/v1/accounts/{id}/holds"),
        ("GET", there, 200, "/v1/transfers/{id}"),
        ("GET", "/v1/transfers?metadata.a=b", 200, "/v1/transfers"),
        ("GET", "/v1/transfers?metadata.=b", 400, "/v1/transfers"),
        ("POST", back, 202, "/v1/transfers/{id}/reversals"),
    )):  # fmt: skip
        headers = later | {"Idempotency_Key": f"k{n}"} if method == "POST" else {}
        cases.append((await rig.call(method, path, **headers), status, route, method.lower()))
    for got, status, path, method in cases:
        assert got.status == status, (path, got)
        check(document, got, path, method)


class Assets(HTMLParser):
    """Collects every address that a page would load or lead to."""

    def __init__(self):
        super().__init__()
        self.tags, self.links = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]


async def test_the_page_shows_it_all_and_loads_nothing_from_elsewhere(rig):
    got = await rig.call("GET", "/docs", key=None)
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    text = got.body.decode()
    page = Assets()
    page.feed(text)
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert not [link for link in page.links if not link.startswith(("#", "/"))]
    assert not re.search(r"url\(|@import", text)
    for _, path in CONTRACT:
        assert f"<code>{path}</code>" in text
    for code in KINDS:
        assert f"<code>{code}</code>" in text
    targets = set(re.findall(r'id="([^"]+)"', text))
    assert not [link for link in page.links if link.startswith("#") and link[1:] not in targets]
