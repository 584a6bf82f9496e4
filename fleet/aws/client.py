"""S3 as two people see it: whoever has the operator's credentials, and everybody. Only this file imports boto3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import InputError
from fleet.model.names import plain

AT_ONCE = 16
CONNECT_S = 5.0
READ_S = 10.0
ATTEMPTS = 4
"""Of one request, the first included; throttling and dropped connections are tried again, later each time."""

DENIED = frozenset({400, 401, 403, 405})
"""Who is not let in: S3 says 403, other stores call an unsigned request a bad one."""
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "ExpiredToken": "the session has expired",
    "InvalidToken": "the session token is not valid",
    "TokenRefreshRequired": "the session has expired",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}
NO_CREDENTIALS_HINT = "aws configure, or aws sso login; then AWS_PROFILE=NAME, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class Answer:
    """What a request came to: the status of HTTP, S3's code of an error, and the body of an answer that was given."""

    status: int
    """0 when there was no answer that could be read."""
    code: str = ""
    message: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether what was asked for was granted."""
        return 200 <= self.status < 300

    @property
    def denied(self) -> bool:
        """Whether it was refused, for whatever reason of permission."""
        return self.status in DENIED

    @property
    def said(self) -> str:
        """The trouble in a few words."""
        if not self.status:
            return f"gave no answer ({self.message})"
        return f"answered {self.status}" + (f" {self.code}" if self.code and self.code != str(self.status) else "")


class Viewer:
    """One S3 client, whose every request ends in an Answer and none in an exception."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def ask(self, operation: str, **parameters: Any) -> Answer:
        """Send one request by the name that boto3 gives it; raises InputError when the credentials themselves are no good."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, SSOError
        from botocore.exceptions import CredentialRetrievalError as NotFetched
        from botocore.exceptions import TokenRetrievalError as NoToken
        from botocore.parsers import ResponseParserError

        try:
            body = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            found = error.response.get("Error", {})
            code = plain(str(found.get("Code", "")), 60)
            if code in _BAD_CREDENTIALS:
                raise InputError(f"AWS refuses the credentials: {_BAD_CREDENTIALS[code]}", hint=NO_CREDENTIALS_HINT) from None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return Answer(status, code, plain(str(found.get("Message", "")), 200))
        except (NoCredentialsError, NotFetched, NoToken, SSOError) as error:
            raise InputError(f"no AWS credentials: {plain(str(error), 200)}", hint=NO_CREDENTIALS_HINT) from None
        except (BotoCoreError, ResponseParserError, ValueError) as error:
            return Answer(0, type(error).__name__, plain(str(error), 200))
        return Answer(body.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), body=body)

    def ask_for(self, needed: str, operation: str, **parameters: Any) -> Answer:
        """Send one request whose answer is S3's only when its body has `needed`.

        The page of a proxy, or of a portal that wants a login, is neither an archive that is there nor a bucket that is open.
        """
        answer = self.ask(operation, **parameters)
        return Answer(0, message="what answers there is not S3") if answer.given and needed not in answer.body else answer


@dataclass(frozen=True)
class Store:
    """The same S3 seen twice."""

    own: Viewer
    everyone: Viewer
    """Sends no credentials at all."""


def open_store(read_s: float = READ_S) -> Store:
    """Return S3 as the environment describes it, AWS_ENDPOINT_URL and AWS_PROFILE included; InputError without credentials."""
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise InputError(
            f"asking S3 needs the Python package {error.name!r}, which is not installed",
            hint="pip install 'fleet-evals[aws]'",
        ) from None

    def config(**more: Any) -> Config:
        return Config(
            connect_timeout=min(CONNECT_S, read_s),
            read_timeout=read_s,
            max_pool_connections=AT_ONCE,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            **more,
        )

    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            raise InputError("no AWS credentials were found", hint=NO_CREDENTIALS_HINT)
        own = session.client("s3", config=config())
        everyone = session.client("s3", config=config(signature_version=UNSIGNED))
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"AWS settings: {plain(str(error), 300)}", hint=NO_CREDENTIALS_HINT) from None
    return Store(Viewer(own), Viewer(everyone))
