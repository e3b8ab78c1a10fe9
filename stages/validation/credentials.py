"""Finds logins and tokens in URLs, which DVC would copy into files that are shared."""

import re
from urllib.parse import unquote

URL = re.compile(r"[a-z][a-z0-9+.-]*://(?P<login>[^/?#]*@)?(?P<host>[^/?#\s]*)\S*", re.I)
# Names of URL parameters that are credentials, such as those of signed URLs of S3, Google and Azure.
SECRET = re.compile(
    r"token|secret|passw|signature|credential|(^|[-_])key$|apikey|accesskey|authkey|^(sig|auth|pwd|pass|pw|jwt|sas)$",
    re.I,
)


def credential_problem(location: str) -> str | None:
    """What is wrong with a path or URL that holds a login or a token, and what to do, without quoting the secret."""
    url = URL.match(location)
    if url is None or (credential := _credential(url)) is None:
        return None
    return (
        f"the URL of {url['host']!r} holds {credential}, and DVC would copy it into shared files. Put a login into "
        "~/.netrc, which downloads use, or download the file yourself and give its path."
    )


def redact(text: str) -> str:
    """The text without the URLs that hold a login or a token."""
    return URL.sub(lambda url: "(URL with a credential)" if _credential(url) else url[0], text)


def _credential(url: re.Match) -> str | None:
    """The kind of credential that a URL holds, such as `a login`; None if there is none."""
    for parameter in re.split("[?#&;]", url[0])[1:]:
        if SECRET.search(name := unquote(parameter.partition("=")[0])):
            return f"the parameter {name!r}, which looks like a credential"
    return "a login" if url["login"] else None
