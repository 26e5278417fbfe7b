"""The OpenAPI document as one page of HTML for people: no script, no asset from elsewhere. Pure."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec

from gateways.problems import KINDS

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;
padding:0 1rem;color:#1a202c}
h1{margin-bottom:0}h2{margin-top:2.5rem}code,pre{font:14px/1.45 ui-monospace,monospace}
section{border:1px solid #d5dbe3;border-radius:8px;margin:1rem 0;padding:.75rem 1rem}
section h3{margin:0;font-size:1rem}.verb{display:inline-block;min-width:3.5rem;font-weight:700}
pre{background:#f5f7fa;border-radius:6px;padding:.75rem;overflow:auto;max-height:24rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.25rem .75rem .25rem 0;border-top:1px solid #e6eaf0}details{margin:.5rem 0}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#e3e8ef}
section{border-color:#333c49}
pre{background:#1b212a}td,th{border-color:#2a323d}a{color:#8ab4f8}}
"""


def page(document: dict[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    operations = [
        (path, verb, operation)
        for path, methods in document["paths"].items()
        for verb, operation in methods.items()
    ]
    schemas = document["components"]["schemas"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])}</h1><p>{escape(info['summary'])}. ",
            f"{escape(info['description'])}</p>",
            '<p>As <a href="/openapi.json">OpenAPI 3.1</a>.</p><h2>Routes</h2>',
            *(_operation(path, verb, operation) for path, verb, operation in operations),
            "<h2>Types</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
            "<h2>Problems</h2><table><tr><th>Code</th><th>Status</th><th>Meaning</th></tr>",
            *(
                f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{kind.status}</td>'
                f"<td>{escape(kind.title)}</td></tr>"
                for code, kind in KINDS.items()
            ),
            "</table></body></html>",
        )
    )


def _operation(path: str, verb: str, operation: dict[str, Any]) -> str:
    name = escape(operation["operationId"])
    parts = [
        f'<section id="{name}"><h3><span class="verb">{verb.upper()}</span> ',
        f"<code>{escape(path)}</code></h3><p>{escape(operation['summary'])}",
        f" {_code(operation.get('description', ''))}</p>",
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        parts.append("<table>")
        parts += [_parameter(parameter) for parameter in parameters]
        parts.append("</table>")
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body: <code>{escape(media_type)}</code> {_link(content['schema'])}</p>")
    parts.append("<details><summary>Answers</summary><table>")
    parts += [_answer(status, answer) for status, answer in operation["responses"].items()]
    parts.append("</table></details></section>")
    return "".join(parts)


def _parameter(parameter: dict[str, Any]) -> str:
    need = "required" if parameter["required"] else "optional"
    text = _code(parameter.get("description", ""))
    name = escape(parameter["name"])
    return f"<tr><td><code>{name}</code></td><td>{parameter['in']}, {need}</td><td>{text}</td></tr>"


def _answer(status: str, answer: dict[str, Any]) -> str:
    if "$ref" in answer:
        return f"<tr><td>{status}</td><td>a problem</td><td>{_link({'$ref': 'Problem'})}</td></tr>"
    links = " ".join(_link(content["schema"]) for content in answer["content"].values())
    return f"<tr><td>{status}</td><td>{_code(answer['description'])}</td><td>{links}</td></tr>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return (
        f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code> '
        f"{escape(schema.get('description', ''))}</summary><pre>{escape(text)}</pre></details>"
    )


def _link(schema: dict[str, Any]) -> str:
    if "$ref" not in schema:
        return ""
    name = escape(schema["$ref"].rpartition("/")[2])
    return f'<a href="#type-{name}"><code>{name}</code></a>'


def _code(text: str) -> str:
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )
