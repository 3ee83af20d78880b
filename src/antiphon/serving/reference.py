"""The API's page: its description (OpenAPI) as plain HTML, without scripts, and without anything from elsewhere."""

from html import escape
from typing import Any

STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
code { font: 14px/1.4 ui-monospace, monospace; }
table { border-collapse: collapse; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid #eee; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } a { color: #8cf; } }
"""

Described = dict[str, Any]


def page(description: Described) -> str:
    """Each way to ask, with the fields of its body."""
    title = escape(description["info"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>',
        '<meta name="viewport" content="width=device-width">',
        '<link rel="stylesheet" href="docs/style.css"></head><body>',
        f"<h1>{title}: API</h1><p>{escape(description['info'].get('description', ''))}",
        'For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation, description))
    return "\n".join([*parts, "</body></html>"])


def _operation(path: str, method: str, operation: Described, description: Described) -> str:
    text = operation.get("description") or operation.get("summary", "")
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{escape(text)}</p>"]
    if parameters := operation.get("parameters", []):
        rows = [(one["name"], one.get("schema", {}), one.get("required", False)) for one in parameters]
        parts.append(_table("parameter", rows))
    bodies = [content.get("schema", {}) for content in operation.get("requestBody", {}).get("content", {}).values()]
    for place, schema in enumerate(bodies):
        if schema not in bodies[:place]:  # one for each way to write it
            parts += _schema(schema, description, "body")
    answered = operation.get("responses", {}).get("200", {}).get("content", {})
    for content in answered.values():
        parts += _schema(content.get("schema", {}), description, "answer")
    return "\n".join(parts)


def _schema(schema: Described, description: Described, what: str) -> list[str]:
    """What a body consists of."""
    found = _resolved(schema, description)
    rows = [(name, field, name in found.get("required", [])) for name, field in found.get("properties", {}).items()]
    text = f"<p>{escape(found['description'])}</p>" if "description" in found and rows else ""
    return [text, _table(what, rows)] if rows else []


def _table(what: str, rows: list[tuple[str, Described, bool]]) -> str:
    lines = [f"<tr><th>{what}</th><th>type</th><th></th></tr>"]
    for name, field, needed in rows:
        default = field.get("default")
        note = "needed" if needed else f"default {default!r}" if default not in (None, "") else ""
        told = " ".join(filter(None, (field.get("description", ""), note)))
        lines.append(
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}</td><td>{escape(told)}</td></tr>"
        )
    return "<table>" + "\n".join(lines) + "</table>"


def _resolved(schema: Described, description: Described) -> Described:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    found: Described = description.get("components", {}).get("schemas", {}).get(name, schema)
    return found


def _type(field: Described) -> str:
    """As people say it."""
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "enum" in field or "const" in field:
        return " or ".join(repr(value) for value in field.get("enum", [field.get("const")]))
    if choices := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in choices if one.get("type") != "null"))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))
