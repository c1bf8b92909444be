"""A client of replyhook's HTTP API."""

import json
import os
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, Optional
from urllib.parse import quote, urlencode, urlsplit

from .payloads import Consent, Handoff, Message, NewConsent, NewHandoff, NewMessage, QueuedMessage


class ApiError(Exception):
    """A response other than success: its status and `reason`, the remedy, and the id of the first message after a 409."""

    def __init__(self, status: int, problem: Any) -> None:
        problem = problem if isinstance(problem, dict) else {}
        self.status, self.reason, self.id = status, problem.get("reason", ""), problem.get("id")
        self.message, self.remedy = problem.get("message", ""), problem.get("remedy", "")
        super().__init__(f"{status} {self.reason}: {self.message}; {self.remedy}")


class Client:
    """Calls the API. URL and token are by default REPLYHOOK_API_URL and REPLYHOOK_API_TOKEN of the environment.

    A call that fails with OSError or HTTPException may have arrived: call again, `send` with the same `key`."""

    def __init__(self, url: Optional[str] = None, token: Optional[str] = None, timeout_s: float = 30) -> None:
        self._url = urlsplit(url or os.environ["REPLYHOOK_API_URL"])
        self._token, self._timeout = token or os.environ["REPLYHOOK_API_TOKEN"], timeout_s

    def send(self, message: NewMessage, key: Optional[str] = None) -> QueuedMessage:
        """Queues a message. Of several calls with one `key`, such as `order-42-ready`, only the first queues one."""
        return self._call("POST", "/messages", message, {"Idempotency-Key": key.encode()} if key else {})

    def message(self, id: int) -> Message:
        return self._call("GET", f"/messages/{id}")

    def record_consent(self, address: str, consent: NewConsent) -> Consent:
        return self._call("PUT", _path("consents", address), consent)

    def consent(self, address: str, **scope: str) -> Optional[Consent]:
        """Returns the consent for `sender=` or `service=`, or the latest."""
        return self._find(_path("consents", address, scope))

    def begin_handoff(self, address: str, handoff: NewHandoff) -> Handoff:
        return self._call("PUT", _path("handoffs", address), handoff)

    def handoff(self, address: str, **scope: str) -> Optional[Handoff]:
        return self._find(_path("handoffs", address, scope))

    def end_handoff(self, address: str, **scope: str) -> None:
        self._call("DELETE", _path("handoffs", address, scope))

    def _find(self, path: str) -> Any:
        try:
            return self._call("GET", path)
        except ApiError as error:
            if error.status != 404 or error.reason == "unknown_path":
                raise

    def _call(self, method: str, path: str, body: Any = None, headers: Any = {}) -> Any:
        # Follow no redirect and use no proxy: another server would get the token.
        kind = {"http": HTTPConnection, "https": HTTPSConnection}[self._url.scheme]
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout)
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", **headers}
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{self._url.path.rstrip('/')}/v1{path}", content, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        found = json.loads(text) if text.startswith(b"{") else None
        if response.status < 300:
            return found
        raise ApiError(response.status, found)


def _path(kind: str, address: str, scope: Any = {}) -> str:
    return f"/{kind}/{quote(address, safe='')}" + (f"?{urlencode(scope)}" if scope else "")
