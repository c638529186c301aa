"""An OpenID Connect provider on this machine: everybody who comes is logged in at once, as the test says who it is."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "the-dashboard", "known-to-both"


class Provider:
    """Authorization code flow with PKCE, tokens signed with RS256. `claims` is who logs in next."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.logins = 0
        self._key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
        self._asked: dict[str, dict[str, str]] = {}  # by code
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(address.query).items()}
                if address.path == "/.well-known/openid-configuration":
                    self._json(provider.metadata)
                elif address.path == "/jwks":
                    self._json({"keys": [provider._key.as_dict(private=False)]})
                elif address.path == "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorize(query))
                    self.end_headers()
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                given = self.headers.get("Authorization", "").removeprefix("Basic ")
                client = base64.b64decode(given).decode() if given else f"{form['client_id']}:{form['client_secret']}"
                assert client == f"{CLIENT}:{SECRET}"
                self._json(provider.token(form))

            def _json(self, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def secrets_toml(self, dashboard: str) -> str:
        """What the dashboard at that address is configured with."""
        return "\n".join(
            [
                "[auth]",
                f'redirect_uri = "{dashboard}/oauth2callback"',
                f'cookie_secret = "{secrets.token_hex(32)}"',
                f'client_id = "{CLIENT}"',
                f'client_secret = "{SECRET}"',
                f'server_metadata_url = "{self.issuer}/.well-known/openid-configuration"',
                "",
            ]
        )

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes back to, with a code."""
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT)
        assert "email" in query["scope"].split() and query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self._asked[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """The tokens for a code, each once."""
        asked = self._asked.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 600, "nonce": asked["nonce"]}
        self.logins += 1
        id_token = jwt.encode({"alg": "RS256", "kid": "first"}, claims | self.claims, self._key)
        return {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": id_token}
