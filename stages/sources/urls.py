"""URLs in messages, without their credentials; paths that stand where a URL may stand."""

import os
import re
from pathlib import Path
from urllib.request import url2pathname

URL = re.compile(r"""://(?P<login>[^/\s'"]*@)?(?P<path>[^\s'"?#]*)(?P<query>[?#][^\s'"]*)?""")


def redact(text: str) -> str:
    """The text without the logins and parameters of its URLs, also of those that a server redirects to."""
    return URL.sub(
        lambda url: f"://{'...@' if url['login'] else ''}{url['path']}{'?...' if url['query'] else ''}", text
    )


def is_url(source: str) -> bool:
    """Whether a source is an http or https URL; else it is a path or a file URL."""
    return source.startswith(("http://", "https://"))


def local_path(source: str) -> Path:
    """The path that a source names which is not a URL: a path, also from `~`, or a file URL."""
    if source.startswith("file:"):
        return Path(url2pathname(source.removeprefix("file:").removeprefix("//localhost")))
    return Path(os.path.expanduser(source))  # noqa: PTH111 - Path's raises if there is no such user
