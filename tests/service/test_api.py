"""The API description is true: every route, every status, every answer's shape."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from adserver import app, tracking
from adserver.console.routes import RULES
from adserver.health import Health
from adserver.loader import Loader
from adserver.methodology import Methodology
from adserver.serving import Delivery
from adserver.site import Site
from tests.service.live import Service, tokens


@pytest.fixture(scope="module")
def described(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = service.http.get("/openapi.json").json()
    return document


def test_description_names_every_route_and_no_other(described: dict[str, Any]) -> None:
    """
    What the router and the hand-written front answer is in the description, and nothing else is.
    """
    health = Health(*[None] * len(Health.__struct_fields__))  # type: ignore[arg-type]
    site = Site(*[None] * len(Site.__struct_fields__))  # type: ignore[arg-type]
    delivery = Delivery(None, None)  # type: ignore[arg-type]
    routes = app._routes(health, site, Methodology(*[None] * 3), delivery, Loader())  # type: ignore[arg-type]
    routed = {_plain(route.path) for route in routes if isinstance(route, Route)}
    routed |= {_plain(rule.path) for rule in RULES if rule.path.startswith("/api/")}
    by_hand = {
        "/ads/{}",
        "/ads",
        "/render",
        "/e/{}/{}/{}",
        "/e/{}/{}/{}.img",
        *(f"{prefix}{{}}" for prefix in tracking.ROUTES),
    }

    assert {_plain(path) for path in described["paths"]} == routed | by_hand


def _plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_description_names_every_method_and_no_other(service: Service, described: dict[str, Any]) -> None:
    """
    A method that is not described is 405, and its Allow header names those that are.
    """
    for path, item in described["paths"].items():
        methods = {name.upper() for name in item} & {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"}
        address = re.sub(r"\{[^}]*\}", "x", path)
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            answer = service.http.request(method, address)
            assert (answer.status_code == 405) is (method not in methods), (method, path)
            if answer.status_code == 405:
                assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods - {"HEAD"}


def test_description_is_valid(described: dict[str, Any]) -> None:
    """
    It is an OpenAPI document of a version tools read, with words for each operation and answer.
    """
    assert described["openapi"].startswith("3.1.")
    for item in described["paths"].values():
        for name, operation in item.items():
            if name == "parameters":
                assert all(parameter["description"] for parameter in operation)
            else:
                assert operation["summary"]
                assert all(answer["description"] for answer in operation["responses"].values())


CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
]


def test_answers_are_as_described_whatever_is_sent(service: Service, tmp_path: Path) -> None:
    """
    schemathesis, with good and bad data for every operation: no 500, no undocumented status, every body as described.
    """
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json", "--no-color",
        "--checks", ",".join(CHECKS), "--mode", "all", "--phases", "examples,coverage,fuzzing",
        "--max-examples", "8", "--seed", "20", "--workers", "1", "--warnings", "off",
        "--generation-database", "none",
    ]  # fmt: skip

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"Selected: (\d+)/\1\s+Tested: \1\s", done.stdout), done.stdout[-2000:]
    assert "Traceback" not in service.log()
    assert service.http.get("/readyz").json()["status"] == "ok"


def test_good_calls_are_as_described(service: Service, described: dict[str, Any]) -> None:
    """
    The answers of ordinary calls have a described status and media type.
    """
    token = tokens(service.http.get("/ads/889990").text)[0]
    calls = [
        ("GET", "/ads/{id}", "/ads/889990"), ("GET", "/ads/{id}", "/ads/1"), ("GET", "/ads", "/ads?id=889990"),
        ("GET", "/ads", "/ads"), ("GET", "/i/{token}", f"/i/{token}"), ("POST", "/i/{token}", f"/i/{token}"),
        ("POST", "/m/{token}", f"/m/{token}"), ("POST", "/v/{token}", f"/v/{token}"),
        ("GET", "/c/{token}", f"/c/{token}"), ("GET", "/metrics", "/metrics"),
        ("GET", "/readyz", "/readyz"), ("GET", "/healthz", "/healthz"), ("GET", "/api/report", "/api/report?by=hour"),
        ("GET", "/api/report", "/api/report?by=x"), ("GET", "/", "/"), ("GET", "/favicon.ico", "/favicon.ico"),
        ("GET", "/methodology", "/methodology"), ("GET", "/api/explain/{id}", "/api/explain/889990?section=travel"),
        ("GET", "/api/explain/{id}", "/api/explain/1"), ("GET", "/api/explain/{id}", "/api/explain/889990?at=x"),
        ("GET", "/sample/{name}", "/sample/page.css"), ("GET", "/sample/{name}", "/sample/page.js"),
        ("GET", "/openapi.json", "/openapi.json"), ("POST", "/render", "/render"),
        ("GET", "/e/{slot}/{issue}/{number}", "/e/889990/spring/1"), ("GET", "/ads/{id}", "/ads/889990?format=email"),
        ("GET", "/e/{slot}/{issue}/{number}", "/e/889990/Spring/1"),
        ("GET", "/e/{slot}/{issue}/{number}.img", "/e/889990/spring/1.img"),
        ("GET", "/e/{slot}/{issue}/{number}.img", "/e/889990/spring/0.img"),
    ]  # fmt: skip
    for method, path, url in calls:
        answer = service.http.request(method, url)
        responses = described["paths"][path][method.lower()]["responses"]
        assert str(answer.status_code) in responses, (method, url, answer.status_code)
        media = answer.headers.get("content-type", "").split(";")[0]
        assert (media in responses[str(answer.status_code)].get("content", {})) is bool(answer.content), (url, media)
