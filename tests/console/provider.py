"""An OpenID Connect provider as a process on loopback, well-behaved until it is told to do one thing wrong.

`GET /authorize` answers at once, as if its user had just typed a password; `POST /control` sets what it does next.
"""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

CLIENT, SECRET = "adserver", "a-secret/with:signs+in=it"
ALGORITHMS = {"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "okp", "Ed25519": "okp"}


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Provider:
    """Its keys, the codes it gave out, and what it was told to do."""

    def __init__(self) -> None:
        self.url = ""
        self.generation = 0
        self.rotate()
        self.codes: dict[str, dict[str, str]] = {}
        self.told: dict[str, Any] = {}
        self.asked: dict[str, int] = {}

    def rotate(self) -> None:
        self.generation += 1
        self.keys: dict[str, Any] = {
            "rsa": RSAKey.generate_key(2048, {"use": "sig", "kid": f"rsa{self.generation}"}),
            "ec": ECKey.generate_key("P-256", {"use": "sig", "kid": f"ec{self.generation}"}),
            "okp": OKPKey.generate_key("Ed25519", {"use": "sig", "kid": f"okp{self.generation}"}),
        }

    def metadata(self) -> dict[str, Any]:
        found = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256", "none", "HS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }
        return {**found, **self.told.get("metadata", {})}

    def jwks(self) -> dict[str, Any]:
        published: list[dict[str, Any]] = [key.as_dict(private=False) for key in self.keys.values()]
        strange = [
            {"kty": "AKP", "kid": "pq"},
            {"kty": "RSA", "kid": "broken"},
            {"kty": "oct", "kid": "o", "k": "c2VjcmV0"},
        ]
        encrypting = {**published[0], "use": "enc", "kid": "enc", "alg": "RSA-OAEP"}
        return {"keys": [*strange, encrypting, *published]}

    def id_token(self, code: dict[str, str]) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url, "aud": CLIENT, "sub": "subject-1", "exp": now + 300, "iat": now, "nonce": code["nonce"],
            "email": "Ann@Courier.Example", "email_verified": True,
        }  # fmt: skip
        claims |= {name: now + value for name, value in self.told.get("times", {}).items()}
        claims |= self.told.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = self.told.get("algorithm", "RS256")
        if algorithm in ("none", "HS256"):  # unsigned, or signed with what everybody can fetch
            header = {"alg": algorithm, "kid": self.keys["rsa"].kid}
            signed = b".".join(_base64(json.dumps(one).encode()) for one in (header, claims))
            secret = self.keys["rsa"].as_pem(private=False)
            signature = b"" if algorithm == "none" else _base64(hmac.digest(secret, signed, "sha256"))
            return b".".join([signed, signature]).decode()
        key = self.keys[ALGORITHMS.get(algorithm, "rsa")]
        if self.told.get("key") == "another":
            key = RSAKey.generate_key(2048, {"kid": key.kid})
        header = {"alg": algorithm, "kid": key.kid, **self.told.get("header", {})}
        header = {name: value for name, value in header.items() if value is not None}
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        return jwt.encode(header, claims, key, registry=registry)


class Handler(BaseHTTPRequestHandler):
    provider: Provider

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: object = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def answered_wrongly(self, path: str) -> bool:
        """Whether it was told to answer *path* otherwise."""
        self.provider.asked[path] = self.provider.asked.get(path, 0) + 1
        wrong = self.provider.told.get("wrong", {}).get(path)
        match wrong:
            case None:
                return False
            case "redirect":
                self.send(302, {}, location=f"{self.provider.url}/elsewhere")
            case "large":
                self.send(200, b'{"x":"' + b"x" * 700_000 + b'"}')
            case "words":
                self.send(200, b"<html>hello</html>")
            case int():
                self.send(wrong, {"error": "server_error", "access_token": "never-shown"})
        return True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.answered_wrongly(parts.path):
            return
        match parts.path:
            case "/.well-known/openid-configuration":
                self.send(200, self.provider.metadata())
            case "/keys":
                self.send(200, self.provider.jwks())
            case "/asked":
                self.send(200, self.provider.asked)
            case "/authorize":
                code = f"code{len(self.provider.codes)}"
                self.provider.codes[code] = query
                answer = {"code": code, "state": query["state"]}
                self.send(302, {}, location=f"{query['redirect_uri']}?{urlencode(answer)}")
            case _:
                self.send(404, {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/control":
            told = json.loads(content)
            if told.pop("rotate", False):
                self.provider.rotate()
            self.provider.told = told
            self.provider.asked.clear()
            self.send(200, {})
            return
        if self.answered_wrongly(self.path):
            return
        form = {name: values[0] for name, values in parse_qs(content.decode()).items()}
        code = self.provider.codes.pop(form.get("code", ""), None)
        if not self.is_the_client(form) or code is None or not self.is_the_same(code, form):
            self.send(400, {"error": "invalid_grant", "error_description": "secret words of the provider"})
            return
        self.send(200, {"access_token": "x", "token_type": "Bearer", "id_token": self.provider.id_token(code)})

    def is_the_client(self, form: dict[str, str]) -> bool:
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        by_form = form.get("client_id") == CLIENT and form.get("client_secret") == SECRET
        return by_form or self.headers.get("authorization") == f"Basic {basic}"

    def is_the_same(self, code: dict[str, str], form: dict[str, str]) -> bool:
        """Who asked for the code is who brings it (PKCE), and from where."""
        challenge = _base64(hashlib.sha256(form["code_verifier"].encode()).digest())
        same = code["code_challenge"] == challenge.decode() and code["code_challenge_method"] == "S256"
        return same and code["redirect_uri"] == form["redirect_uri"]


class Running:
    """The process, from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, trust_env=False, verify=False)

    def does(self, **told: Any) -> None:
        """What it does from now on: `claims`, `times`, `algorithm`, `header`, `key`, `metadata`, `wrong`, `rotate`."""
        assert self.http.post("/control", json=told).status_code == 200

    def asked(self) -> dict[str, int]:
        """How often each path was asked for since it was told something."""
        found: dict[str, int] = self.http.get("/asked").json()
        return found

    def lets_in(self, url: str) -> dict[str, str]:
        """What the browser that was sent to *url* brings back to the callback."""
        answer = httpx.get(url, follow_redirects=False, trust_env=False)
        assert answer.status_code == 302
        parts = urlsplit(answer.headers["location"])
        return {name: values[0] for name, values in parse_qs(parts.query).items()}


@contextmanager
def running_provider(host: str = "127.0.0.1") -> Iterator[Running]:
    """One that calls itself *host*: to a browser `localhost` is another site than `127.0.0.1`."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.console.provider", host]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            running = Running(process.stdout.readline().strip())
            yield running
            running.http.close()
        finally:
            process.kill()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.provider = Provider()
    Handler.provider.url = f"http://{sys.argv[1]}:{server.server_port}"
    print(Handler.provider.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
