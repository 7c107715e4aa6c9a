"""The API description is a well-formed OpenAPI 3.1 document."""

import json
import re
from collections.abc import Iterator
from typing import Any

from adserver import __version__
from adserver.model import Format
from adserver.openapi import describe

DOCUMENT = describe("https://ads.example.com")
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}


def operations() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method} {path}", item, item[method]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def schemas() -> Iterator[dict[str, Any]]:
    yield from (node["schema"] for node in nodes(DOCUMENT) if isinstance(node.get("schema"), dict))
    yield from DOCUMENT["components"]["schemas"].values()


def test_names_itself() -> None:
    """
    The document says its own version, the service's, and where it is served.
    """
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["servers"] == [{"url": "https://ads.example.com"}]
    assert DOCUMENT["info"]["license"].keys() <= {"name", "identifier"}


def test_survives_as_json() -> None:
    """
    What is sent is what was described.
    """
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    """
    Each `$ref` names a schema that is in the document, and each schema is used.
    """
    used = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    assert used == {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}


def test_paths_declare_the_parameters_they_hold() -> None:
    """
    Every name in braces is a required path parameter, and no other is one.
    """
    for path, item in DOCUMENT["paths"].items():
        assert path.startswith("/")
        named = {one["name"] for one in item.get("parameters", []) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path


def test_parameters_are_whole() -> None:
    """
    A parameter has a name, a place, words and a schema; two of one path are never alike.
    """
    for name, item, operation in operations():
        parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
        assert len({(one["name"], one["in"]) for one in parameters}) == len(parameters), name
        for one in parameters:
            assert one.keys() <= {"name", "in", "required", "description", "schema", "explode"}
            assert one["in"] in ("path", "query", "header")
            assert one["description"]
            assert one["schema"]["type"] in TYPES
            assert one["in"] != "path" or one["required"] is True


def test_operations_are_whole() -> None:
    """
    An operation has a summary and at least one answer; each answer has a status, words and known content.
    """
    found = list(operations())
    assert len(found) > 15
    for name, item, operation in found:
        assert item.keys() <= METHODS | {"parameters"}, name
        assert operation.keys() <= {"summary", "responses", "requestBody", "parameters", "security"}, name
        assert operation["summary"], name
        assert operation["responses"], name
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5][0-9][0-9]", status), name
            assert answer["description"], name
            for media, content in answer.get("content", {}).items():
                assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", media), name
                assert content.keys() == {"schema"}, name


def test_who_may_be_refused_is_asked() -> None:
    """
    An operation that names a way to say who calls can answer 401 and 403, and each way is described.
    """
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert schemes["token"] == {**schemes["token"], "type": "http", "scheme": "bearer"}
    for name, _, operation in operations():
        ways = {way for one in operation.get("security", []) for way in one}
        assert ways in (set(), set(schemes)), name
        assert bool(ways) is ("401" in operation["responses"]), name
        assert not ways or "403" in operation["responses"], name


def test_errors_are_problems() -> None:
    """
    An answer at fault is a problem, save where a person or a probe reads it.
    """
    others = {("/c/{token}", "404"), ("/e/{slot}/{issue}/{number}", "404"), ("/readyz", "503")}
    for path, item in DOCUMENT["paths"].items():
        for operation in (item[method] for method in METHODS & item.keys()):
            for status, answer in operation["responses"].items():
                if status >= "400" and (path, status) not in others:
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)


def test_schemas_are_schemas() -> None:
    """
    Each schema has known types, and requires only what it describes.
    """
    for top in schemas():
        for schema in nodes(top):
            if "type" in schema and not isinstance(schema["type"], dict):
                types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
                assert set(types) <= TYPES
                assert set(schema.get("required", [])) <= schema.get("properties", {}).keys()
                assert ("items" in schema) == (schema["type"] == "array")


def test_formats_are_those_there_are() -> None:
    """
    The formats in the description are those of the model.
    """
    formats = {tuple(one["schema"]["enum"]) for one in nodes(DOCUMENT) if one.get("name") == "format"}
    assert formats == {tuple(form.value for form in Format)}
