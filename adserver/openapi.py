"""The API description: every route this service answers, with every status it can answer with."""

from typing import Any

from adserver import __version__
from adserver.model import Format
from adserver.report import DIMENSIONS, EVENT_FIGURES, FIGURES

_TEXT = {"schema": {"type": "string"}}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def describe(base_url: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "adserver",
            "version": __version__,
            "description": "Resolves ad ids to creatives, tracks what happens to them, reports it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url}],
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> dict[str, Any]:
    context = [_query(name, **schema) for name, schema in _CONTEXT.items()]
    return {
        "/ads/{id}": {
            "parameters": [_path("id", "Ad id of the slot."), *context],
            "get": _operation(
                "One slot's snippet",
                {
                    "200": _answer("The snippet.", {"text/html": _TEXT}),
                    "204": _answer("Nothing fits; Adserver-Reason says why."),
                    **_problems(400, 403, 404),
                },
            ),
        },
        "/ads": {
            "parameters": [
                {
                    "name": "id",
                    "in": "query",
                    "required": True,
                    "description": "Ad id; repeat it for up to 100 slots, decided as one page.",
                    "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 100},
                    "explode": True,
                },
                *context,
            ],
            "get": _operation(
                "Several slots as JSON",
                {
                    "200": _answer("The ads, by id in the order asked.", _json("Ads")),
                    **_problems(400, 403),
                },
            ),
        },
        "/render": {
            "parameters": [*context, _query("repair", description="0 switches the repair of broken shortcodes off.")],
            "post": {
                **_operation(
                    "An article with its shortcodes replaced",
                    {
                        "200": _answer("The article.", {"text/html": _TEXT, "text/plain": _TEXT}),
                        **_problems(400, 403, 413, 415),
                    },
                ),
                "requestBody": {"required": True, "content": {"text/html": _TEXT, "text/plain": _TEXT}},
            },
        },
        "/i/{token}": {
            "parameters": [_token()],
            "get": _operation(
                "Impression, as an image", {"200": _answer("1x1 GIF.", {"image/gif": _TEXT}), **_problems(503)}
            ),
            "post": _operation("Impression", {"204": _answer(_HEARD), **_problems(413, 415, 503)}),
        },
        "/v/{token}": {
            "parameters": [_token()],
            "post": _operation("Viewable impression", {"204": _answer(_HEARD), **_problems(413, 415, 503)}),
        },
        "/c/{token}": {
            "parameters": [_token()],
            "get": _operation(
                "Click",
                {
                    "302": _answer("To the creative's own destination."),
                    "404": _answer("The link leads nowhere any more.", {"text/html": _TEXT}),
                },
            ),
        },
        "/assets/{name}": {
            "parameters": [_path("name", "The file's hash and extension.")],
            "get": _operation(
                "A creative's file",
                {
                    "200": _answer(
                        "The image.", {f"image/{one}": _TEXT for one in ("png", "jpeg", "gif", "webp", "avif")}
                    ),
                    "304": _answer("Not changed."),
                    **_problems(404),
                },
            ),
        },
        "/healthz": {"get": _operation("Alive?", {"200": _answer("Yes.", {"text/plain": _TEXT})})},
        "/readyz": {
            "get": _operation(
                "Ready?",
                {
                    "200": _answer("Ready, or degraded.", _json("Ready")),
                    "503": _answer("Not ready.", {**_json("Ready"), **_PROBLEM}),
                },
            )
        },
        "/metrics": {"get": _operation("Metrics", {"200": _answer("Prometheus text.", {"text/plain": _TEXT})})},
        "/openapi.json": {
            "get": _operation(
                "This description", {"200": _answer("OpenAPI.", {"application/json": {"schema": {"type": "object"}}})}
            )
        },
        "/api/report": {
            "parameters": [
                _query("from", description="First day, such as 2026-03-01; default: today."),
                _query("to", description="Last day; default: today."),
                _query(
                    "by",
                    description="A row for each; default: slot.",
                    schema={"type": "string", "enum": list(DIMENSIONS)},
                ),
            ],
            "get": _operation(
                "Delivery figures", {"200": _answer("The figures.", _json("Report")), **_problems(400, 503)}
            ),
        },
        "/api/explain/{id}": {
            "parameters": [_path("id", "Ad id of the slot."), *context],
            "get": _operation(
                "Why an ad shows in a slot, or why none does",
                {"200": _answer("The explanation.", _json("Explanation")), **_problems(400, 403, 404)},
            ),
        },
        "/": {
            "get": _operation(
                "The sample page, on the sample configuration",
                {"200": _answer("The page.", {"text/html": _TEXT}), **_problems(404)},
            )
        },
        "/sample/{name}": {
            "parameters": [_path("name", "A file of the sample page.")],
            "get": _operation(
                "A file of the sample page",
                {"200": _answer("The file.", {"text/css": _TEXT, "text/javascript": _TEXT}), **_problems(404)},
            ),
        },
        "/methodology": {
            "get": _operation("How ads are counted here", {"200": _answer("The page.", {"text/html": _TEXT})})
        },
        "/favicon.ico": {"get": _operation("No icon", {"204": _answer("There is none.")})},
    }


_HEARD = "Heard; Adserver-Ignored says why it was not counted, if so."

_CONTEXT: dict[str, dict[str, Any]] = {
    "format": {
        "description": "What the snippet is embedded in.",
        "schema": {"type": "string", "enum": [form.value for form in Format]},
    },
    "url": {"description": "The page's address."},
    "section": {"description": "The page's section."},
    "tag": {
        "description": "A tag of the page; repeat it for several.",
        "schema": {"type": "array", "items": {"type": "string"}},
    },
    "lang": {"description": "The page's language, such as de or de-AT."},
    "country": {"description": "The reader's country, two letters."},
    "device": {"description": "desktop, mobile or tablet."},
    "reader": {"description": "Who reads: an opaque key of the site's own, for frequency caps; never stored as it is."},
    "ua": {"description": "The reader's User-Agent, when a template asks on the reader's behalf."},
    "consent": {"description": "1: the reader agreed to be told apart, which frequency caps need; else 0."},
    "at": {"description": "An instant to preview; needs a staff token."},
}


def _operation(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {**_problems(*_REFUSALS), **responses}}


def _answer(description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description, **({"content": content} if content else {})}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_WHY[status], _PROBLEM) for status in statuses}


_REFUSALS = (400, 408, 414, 431, 503)
"""What any address answers to a request that is malformed, never whole, too large, or one too many."""

_WHY = {
    400: "The request is at fault; detail says how.",
    403: "A staff token is needed.",
    404: "There is nothing by this name.",
    408: "The request did not arrive whole in time.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body's type or coding is not read here.",
    431: "The header fields are too many or too large.",
    503: "Not possible now; try again.",
}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def _path(name: str, description: str) -> dict[str, Any]:
    """Any text without control characters gets the operation's own answer; what it has to be is not told to forgers."""
    schema = {"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f]{1,200}$"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _token() -> dict[str, Any]:
    return _path("token", "A snippet's token.")


def _schemas() -> dict[str, Any]:
    text, number, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    maybe = {"type": ["string", "null"]}
    ad = {"html": text, "filled": flag, "reason": maybe, "line_item": maybe, "creative": maybe, "max_age": number}
    return {
        "Problem": {
            "type": "object",
            "properties": {"type": text, "title": text, "status": number, "detail": text},
            "required": ["title", "status", "detail"],
        },
        "Ads": _object({"version": number, "ads": {"type": "object", "additionalProperties": _object(ad)}}),
        "Ready": _object(
            {
                "status": {"type": "string", "enum": ["ok", "degraded", "failing"]},
                "reasons": {"type": "array", "items": text},
                "catalog_version": number,
            }
        ),
        "Explanation": _object(
            {
                "slot": number,
                "at": text,
                "version": number,
                "filled": flag,
                "line_item": maybe,
                "creative": maybe,
                "reason": maybe,
                "sentence": text,
                "candidates": {
                    "type": "array",
                    "items": _object(
                        {"line_item": text, "name": text, "priority": text, "step": maybe, "reason": text}
                    ),
                },
            }
        ),
        "Report": _object(
            {
                "from": text,
                "to": text,
                "time_zone": text,
                "waiting": number,
                "rows": {"type": "array", "items": _figures(number)},
                "late": {"type": "array", "items": _figures(number)},
            }
        ),
    }


def _figures(number: dict[str, Any]) -> dict[str, Any]:
    invalid = {"type": "object", "additionalProperties": number}
    names = {name: {"type": ["string", "integer", "null"]} for name in DIMENSIONS}
    each = _object(dict.fromkeys(EVENT_FIGURES, number))
    apart = {
        "invalid": invalid,
        "invalid_by_type": _object(dict.fromkeys(EVENT_FIGURES, invalid)),
        "suspect": each,
        "gross": each,
    }
    figures = {**dict.fromkeys(FIGURES, number), **apart}
    return {"type": "object", "properties": {**names, **figures}, "required": list(figures)}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
