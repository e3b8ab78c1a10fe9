"""URLs in messages, without the credentials they may hold."""

import re

SHOWN = re.compile(r"""://(?P<login>[^/\s'"]*@)?(?P<path>[^\s'"?#]*)(?P<query>[?#][^\s'"]*)?""")


def redact(text: str) -> str:
    """Text without the logins and parameters of addresses in it: a server may lead to an address that has some."""
    return SHOWN.sub(
        lambda found: f"://{'...@' if found['login'] else ''}{found['path']}{'?...' if found['query'] else ''}", text
    )
