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
        "paths": {**_paths(), **_desk_paths()},
        "components": {"schemas": {**_schemas(), **_desk_schemas()}, "securitySchemes": _SCHEMES},
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
                        "200": _answer(
                            "The article; Adserver-Max-Age says for how many seconds it may be shown again while the "
                            "service is away, where the call has a query.",
                            {"text/html": _TEXT, "text/plain": _TEXT},
                        ),
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
        "/m/{token}": {
            "parameters": [_token()],
            "post": _operation("Measured impression", {"204": _answer(_HEARD), **_problems(413, 415, 503)}),
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
        "/e/{slot}/{issue}/{number}": {
            "parameters": _PLACE,
            "get": _operation(
                "A newsletter's link",
                {
                    "302": _answer("To the destination of the place's ad; to the site's home once it has none."),
                    "404": _answer(
                        "No such place; or its ad is over, and there is no home to lead to.",
                        {"text/html": _TEXT, **_PROBLEM},
                    ),
                },
            ),
        },
        "/e/{slot}/{issue}/{number}.img": {
            "parameters": _PLACE,
            "get": _operation(
                "A newsletter's picture",
                {
                    "200": _answer(
                        "The picture of the place's ad; a transparent 1x1 GIF once it has none.",
                        {f"image/{one}": _TEXT for one in _IMAGES},
                    ),
                    **_problems(404),
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
        "/loader.js": _page_file("The page-side script", "text/javascript"),
        "/loader.css": _page_file("What ads need of a page's style", "text/css"),
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
            "parameters": [
                _path("id", "Ad id of the slot."),
                {
                    "name": "id",
                    "in": "query",
                    "description": "Ad id of another slot of the page; repeat it for several. Decided as one page.",
                    "schema": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
                    "explode": True,
                },
                *context,
            ],
            "get": _operation(
                "Why an ad shows in a slot, or why none does",
                {
                    "200": _answer("The explanation, and those of the page's other slots.", _json("Explanation")),
                    **_problems(400, 403, 404),
                },
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


def _desk_paths() -> dict[str, Any]:
    """What the sales console does, for programs of somebody who may."""
    table = _path("table", "Such as line_item, as the configuration calls it.")
    number = _path("number", "The version's number.")
    note = _query("note", "Why, for the history.", {"type": "string", "maxLength": 500})
    before = _query("before", "Where the page begins: `before` of the page before it.")
    page = _query("page", "Which page; default: 1.", {"type": "integer", "minimum": 1})
    return {
        "/api/me": {"get": _for_viewers("Who calls", {"200": _answer("Name and role.", _json("Me"))})},
        "/api/catalog": {
            "get": _for_viewers("The live catalog", {"200": _answer(_CATALOG, _json("Catalog"), _ETAG)}),
            "post": _for_sales(
                "Put and remove entries, all or none",
                {"200": _answer("Live.", _json("Changed"), _ETAG), **_problems(413)},
                body="Changes",
            ),
        },
        "/api/catalog/{table}": {
            "parameters": [table, _query("q", "A part of an id or a name."), page],
            "get": _for_viewers(
                "Entries of a table", {"200": _answer("A page.", _json("Entries"), _ETAG), **_problems(404)}
            ),
        },
        "/api/catalog/{table}/{id}": {
            "parameters": [table, _path("id", "The entry's id.")],
            "get": _for_viewers("An entry", {"200": _answer("It.", _json("Entry"), _ETAG), **_problems(404)}),
            "put": _for_sales(
                "Add or replace an entry",
                {
                    "200": _answer("Replaced, and live.", _json("PutEntry"), _ETAG),
                    "201": _answer("Added, and live.", _json("PutEntry"), _ETAG),
                    **_problems(404, 413),
                },
                note,
                body="Entry",
            ),
            "delete": _for_sales(
                "Remove an entry", {"200": _answer("Removed.", _json("Published"), _ETAG), **_problems(404)}, note
            ),
        },
        "/api/versions": {
            "parameters": [before],
            "get": _for_viewers("The history, newest first", {"200": _answer("A page.", _json("Versions"), _ETAG)}),
        },
        "/api/versions/{number}": {
            "parameters": [number],
            "get": _for_viewers(
                "A version with its catalog", {"200": _answer("It.", _json("Version")), **_problems(404)}
            ),
        },
        "/api/versions/{number}/difference": {
            "parameters": [number, _query("since", "The version to compare with; default: the one before.")],
            "get": _for_viewers(
                "What a version changed", {"200": _answer("In words.", _json("Difference")), **_problems(404)}
            ),
        },
        "/api/versions/{number}/restore": {
            "parameters": [number],
            "post": _for_sales(
                "Make an older version's catalog live again, as a new version",
                {"200": _answer("Live.", _json("Published"), _ETAG), **_problems(404)},
                note,
            ),
        },
        "/api/pauses": {
            "get": _for_viewers("What is paused", {"200": _answer("All of it.", _json("Pauses"), _ETAG)}),
            "post": _for_sales(
                "Pause a line item, an advertiser, a category or a section at once",
                {"201": _answer("Paused.", _json("Paused"), _ETAG), **_problems(409, 413)},
                body="Pause",
                version_needed=False,
            ),
        },
        "/api/pauses/{id}": {
            "parameters": [_path("id", "The pause's id.")],
            "delete": _for_sales(
                "End a pause at once",
                {"200": _answer("It shows again.", _json("Published"), _ETAG), **_problems(404, 409)},
                version_needed=False,
            ),
        },
        "/api/assets": {
            "parameters": [_query("name", "What the file is called, when it is sent as the body.")],
            "post": {
                **_for_sales(
                    "Keep an image for creatives to name",
                    {"201": _answer("Kept.", _json("Asset")), **_problems(413, 415, 422)},
                    version=False,
                ),
                "requestBody": {
                    "required": True,
                    "content": {
                        **{f"image/{one}": _TEXT for one in _IMAGES},
                        "multipart/form-data": {"schema": {"type": "object"}},
                    },
                },
            },
        },
        "/api/import/advanced-ads": {
            "post": _for_sales(
                "What Advanced Ads keeps, as configuration files; nothing is published",
                {"200": _answer("Files, and what has no equal.", _json("Moved")), **_problems(413, 422)},
                version=False,
                body="AdvancedAds",
            )
        },
        "/api/audit": {
            "parameters": [before, _query("who", "By whom."), _query("subject", "About what.")],
            "get": _for_viewers("Who did what, newest first; for admins", {"200": _answer("A page.", _json("Audit"))}),
        },
    }


def _page_file(summary: str, media: str) -> dict[str, Any]:
    found = {
        "200": _answer("The file, zipped where that is accepted.", {media: _TEXT}),
        "304": _answer("Not changed."),
    }
    version = _query("v", description="The hash of its content, as Content-Location gives it: it may be kept for ever.")
    return {"parameters": [version], "get": _operation(summary, found)}


_CATALOG = "All of it, in the words of the configuration."
_IMAGES = ("png", "jpeg", "gif", "webp", "avif")
_ETAG = {"ETag": {"description": 'The live version, such as "12".', "schema": {"type": "string"}}}
_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token, made in the console under one's name; it may what that person may.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-adserver",
        "description": "The console's own session. What changes something needs X-CSRF-Token and its Origin as well.",
    },
}


def _for_viewers(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    """Asks who calls."""
    operation = _operation(summary, {**_problems(401, 403), **responses})
    return {**operation, "security": [{"token": []}, {"session": []}]}


def _for_sales(
    summary: str,
    responses: dict[str, Any],
    *parameters: dict[str, Any],
    body: str = "",
    version: bool = True,
    version_needed: bool = True,
) -> dict[str, Any]:
    """Changes something: for the version it was made for, and only if everything is right afterwards."""
    found = _for_viewers(summary, responses)
    if version:
        found["responses"] |= {
            "412": _answer(_WHY[412], _problem("Stale")),
            "422": _answer(_WHY[422], _problem("Wrong")),
            **(_problems(428) if version_needed else {}),
        }
        parameters = (_if_match(required=version_needed), *parameters)
    if parameters:
        found["parameters"] = list(parameters)
    if body:
        found["requestBody"] = {"required": True, "content": _json(body)}
    return found


def _if_match(*, required: bool) -> dict[str, Any]:
    schema = {"type": "string", "pattern": '^"[0-9]{1,12}"$'}
    words = 'The version it was made for, such as "12".'
    return {"name": "If-Match", "in": "header", "required": required, "description": words, "schema": schema}


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
    "issue": {"description": "With format=email: which issue of a newsletter or feed; default: the newsroom's date."},
    "index": {"description": "With format=email: which of the slot's places in the issue, 1 to 99; default: 1."},
}


def _operation(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {**_problems(*_REFUSALS), **responses}}


def _answer(
    description: str, content: dict[str, Any] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    found = {"description": description, "headers": headers, "content": content}
    return {name: value for name, value in found.items() if value}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_WHY[status], _PROBLEM) for status in statuses}


def _problem(name: str) -> dict[str, Any]:
    """A problem that says more to programs than its words."""
    return {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


_REFUSALS = (400, 408, 414, 431, 503)
"""What any address answers to a request that is malformed, never whole, too large, or one too many."""

_WHY = {
    400: "The request is at fault; detail says how.",
    401: "An API token is needed, as a Bearer token; or a session.",
    403: "This caller may not; detail says what is needed.",
    404: "There is nothing by this name.",
    408: "The request did not arrive whole in time.",
    409: "Others published at the same time, again and again, or it would leave the catalog wrong.",
    412: "Another version is live by now; the answer says who published what since.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body's type or coding is not read here.",
    422: "The catalog would be wrong afterwards; every problem is told, and nothing was published.",
    428: "Say which version it is for, by If-Match.",
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


_PLACE = [
    _path("slot", "Ad id of the slot."),
    _path("issue", "The issue: lowercase letters, digits and hyphens, 40 at most."),
    _path("number", "Which of the slot's places in the issue, from 1."),
]


def _schemas() -> dict[str, Any]:
    text, number, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    maybe = {"type": ["string", "null"]}
    explained = {
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
            "items": _object({"line_item": text, "name": text, "priority": text, "step": maybe, "reason": text}),
        },
    }
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
        "Explanation": _object({**explained, "others": {"type": "array", "items": _object(explained)}}),
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


def _desk_schemas() -> dict[str, Any]:
    text, number = {"type": "string"}, {"type": "integer"}
    maybe = {"type": ["string", "null"]}
    turn = _object({"label": text, "before": maybe, "after": maybe})
    id_ = {"type": ["string", "integer"]}
    change = {"what": text, "table": text, "id": id_, "name": text, "fields": _list(turn)}
    entry = {"type": "object"}
    summary = {"number": number, "author": text, "at": text, "note": text, "origin": text}
    problem = {"type": text, "title": text, "status": number, "detail": text}
    logged = dict.fromkeys(("position", "at", "who", "what", "subject", "detail", "address"), text)
    changes, entries = _list(_object(change)), _list(entry)
    tables = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "object"}}}
    ids = {"type": "object", "additionalProperties": {"type": "array", "items": id_}}
    return {
        "Me": _object(
            {
                "name": text,
                "role": text,
                "token": {"type": ["object", "null"], "properties": {"id": text, "label": text}},
            }
        ),
        "Catalog": _object({"version": number, "site": entry, "slot": entries, "line_item": entries}),
        "Entry": entry,
        "Entries": _object(
            {"version": number, "table": text, "count": number, "page": number, "pages": number, "entries": entries}
        ),
        "Changes": {
            "type": "object",
            "properties": {"put": tables, "remove": ids, "note": {"type": "string", "maxLength": 500}},
            "additionalProperties": False,
        },
        "Changed": _object({"version": number, "changes": changes}),
        "PutEntry": _object({"version": number, "entry": entry}),
        "Published": _object({"version": number}),
        "Versions": _object(
            {"live": number, "versions": _list(_object(summary)), "before": {"type": ["integer", "null"]}}
        ),
        "Version": _object({**summary, "catalog": entry}),
        "Difference": _object({"version": number, "since": number, "count": number, "changes": changes}),
        "Pauses": _object({"version": number, "pauses": entries}),
        "Pause": {
            "type": "object",
            "properties": dict.fromkeys(
                ("id", "line_item", "advertiser", "category", "section", "starts", "ends", "reason"), text
            ),
            "required": ["ends"],
        },
        "Paused": _object({"version": number, "pause": entry}),
        "Asset": _object(
            {
                "image": text,
                "pixels": text,
                "fits": _list(text),
                "bytes": number,
                "notes": _list(text),
                "kept_days": number,
            }
        ),
        "AdvancedAds": {
            "type": "object",
            "properties": {
                "advanced_ads_export": {"const": 1},
                "site": {"type": "object"},
                **{name: _list({"type": "object"}) for name in ("ads", "groups", "media")},
                "placements": {"type": ["object", "array"]},
            },
            "required": ["advanced_ads_export"],
        },
        "Moved": _object(
            {
                "files": {"type": "object", "additionalProperties": text},
                "left": _list(_object({"what": text, "why": text})),
            }
        ),
        "Audit": _object({"entries": _list(_object(logged)), "before": maybe}),
        "Stale": _object({**problem, "version": number, "since": _list(_object(summary)), "changes": changes}),
        "Wrong": _object({**problem, "problems": _list(_object({"where": text, "what": text}))}),
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


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
