"""Reports the findings of pip-audit from its JSON and its messages: `python .ci/audit.py <json> <messages>`.

Vulnerabilities fail, and so does a failure of pip-audit itself, unless it could not reach a service. Packages that
were not audited are listed.
"""

import json
import re
import sys
from pathlib import Path

# Known vulnerabilities that do not affect this project: id -> reason.
ACCEPTED: dict[str, str] = {}
UNREACHED = re.compile(r"connection|max retries|timed? ?out|resolve|unreachable|proxy|HTTP ?Error|404|50\d", re.I)


def main() -> None:
    text, messages = (Path(path).read_text(encoding="utf-8") for path in sys.argv[1:])
    try:
        packages = json.loads(text)["dependencies"]
    except ValueError:
        packages = []
        if not UNREACHED.search(messages):
            sys.exit(f"pip-audit failed: {messages.strip()[-500:]}")
    audited = [package for package in packages if "vulns" in package]
    findings = [(package, vulnerability) for package in audited for vulnerability in package["vulns"]]
    for package, vulnerability in findings:
        number = vulnerability["id"]
        fixes = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {number}, {ACCEPTED.get(number, f'fixed in {fixes}')}")
    if not audited:
        print("no vulnerability service can be reached: requirements.txt IS NOT AUDITED", file=sys.stderr)
    elif unknown := [package["name"] for package in packages if "vulns" not in package]:
        print(f"NOT AUDITED, because the service does not know them: {', '.join(unknown)}", file=sys.stderr)
    if any(vulnerability["id"] not in ACCEPTED for _, vulnerability in findings):
        sys.exit("requirements.txt has known vulnerabilities: raise those versions, or accept them in .ci/audit.py")


if __name__ == "__main__":
    main()
