"""URLs in messages, without their credentials."""

import re

URL = re.compile(r"""://(?P<login>[^/\s'"]*@)?(?P<path>[^\s'"?#]*)(?P<query>[?#][^\s'"]*)?""")


def redact(text: str) -> str:
    """The text without the logins and parameters of its URLs, also of those that a server redirects to."""
    return URL.sub(
        lambda url: f"://{'...@' if url['login'] else ''}{url['path']}{'?...' if url['query'] else ''}", text
    )
