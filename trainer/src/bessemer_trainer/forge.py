"""Pull requests of a git server by the API that Gitea, Forgejo and GitHub share. Reads and opens; never merges."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from bessemer_api.v1alpha1.git import GitTarget
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.gitrepo import Credentials

TIMEOUT = 60
PAGE = 50
PAGES = 20


@dataclass(frozen=True, slots=True)
class PullRequest:
    """One pull request."""

    url: str
    is_open: bool
    is_merged: bool


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the token to another host."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - as the base class
        return None


class Forge:
    """The API of the server that has the repository of `target`."""

    def __init__(self, target: GitTarget, credentials: Credentials) -> None:
        parts = urlsplit(target.repository)
        steps = parts.path.removesuffix(".git").strip("/").split("/")
        if len(steps) != 2:
            raise PermanentError("GitMissing", f"{target.repository}: expected https://host/owner/repository")
        self._owner, self._base = steps[0], target.branch
        self._url = f"{_api(target.provider or '', parts.netloc)}/repos/{quote(steps[0])}/{quote(steps[1])}/pulls"
        self._credentials = credentials
        context = ssl.create_default_context(cafile=str(credentials.ca_file) if credentials.ca_file else None)
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))

    def find(self, branch: str) -> PullRequest | None:
        """The newest pull request from `branch`, open or not."""
        query = {"state": "all", "head": f"{self._owner}:{branch}", "base": self._base, "per_page": PAGE, "limit": PAGE}
        for page in range(1, PAGES + 1):
            rows = self._ask("GET", f"{self._url}?{urlencode({**query, 'page': page})}")
            for row in rows:
                if row["head"]["ref"] == branch and row["base"]["ref"] == self._base:
                    return _parsed(row)
            if not rows:
                break
        return None

    def open(self, branch: str, title: str, body: str) -> PullRequest:
        """Propose `branch`; the pull request, also when it is there already."""
        document = {"title": title, "head": branch, "base": self._base, "body": body}
        try:
            return _parsed(self._ask("POST", self._url, document))
        except PermanentError:
            found = self.find(branch)  # an attempt before this one may have opened it and died
            if found is None:
                raise
            return found

    def _ask(self, method: str, url: str, document: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        data = json.dumps(document).encode() if document is not None else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - https, by the pattern
        if self._credentials.token:
            request.add_unredirected_header("Authorization", f"token {self._credentials.token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise self._refusal(method, error) from None
        except (OSError, ValueError) as error:
            raise TransientError("GitUnreachable", f"{self._url}: {self._credentials.hide(str(error))}") from None

    def _refusal(self, method: str, error: urllib.error.HTTPError) -> Exception:
        said = " ".join(self._credentials.hide(error.read(2000).decode("utf-8", "replace")).split())[:300]
        where = f"{method} {self._url} was answered with {error.code}: {said}"
        if error.code in {401, 403}:
            fix = "renew the credentials that the profile names (gitSecret), then annotate bessemer.dev/retry"
            return PermanentError("GitUnauthorized", f"{fix}; {where}")
        if error.code == 429 or error.code >= 500:
            return TransientError("GitUnreachable", where)
        return PermanentError("GitRefused", where)


def _api(provider: str, host: str) -> str:
    if provider == "github":
        return "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"
    return f"https://{host}/api/v1"


def _parsed(row: dict[str, Any]) -> PullRequest:
    return PullRequest(str(row["html_url"])[:512], row["state"] == "open", bool(row.get("merged_at")))
