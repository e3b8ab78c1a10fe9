"""Addresses that hold a login or a token: refused in a study, and never shown."""

import re
from urllib.parse import unquote

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://(?P<login>[^/?#]*@)?(?P<host>[^/?#]*)", re.I)
# Parameters that are credentials, as those of signed links of S3, Google and Azure.
SECRET = re.compile(
    r"token|secret|passw|signature|credential|(^|[-_])key$|apikey|accesskey|authkey|^(sig|auth|pwd|pass|pw|jwt|sas)$",
    re.I,
)


def refuse_credentials(location: str) -> str:
    """A path or an address as it is; `ValueError`, which quotes no secret, where it holds a login or a token."""
    if (address := ADDRESS.match(location)) is None:
        return location
    found = "a login" if address["login"] else ""
    for parameter in re.split("[?#&;]", location)[1:]:
        if SECRET.search(name := unquote(parameter.partition("=")[0])):
            found = f"the parameter {name!r}, which looks like a credential"
    if found:
        raise ValueError(
            f"the address of {address['host']!r} holds {found}, and DVC would copy it into files that are shared; put "
            "a login into ~/.netrc, where it is found, or fetch the file by other means and give its path"
        )
    return location


def refuse_url(path: str) -> str:
    """A path as it is; `ValueError` where it is an address, to which DVC would connect."""
    if "://" in path:
        raise ValueError("the path of a folder of this machine is needed, and this is an address; give the path")
    return path
