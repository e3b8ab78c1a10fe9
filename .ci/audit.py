"""What pip-audit found, from its JSON and what it said: `python .ci/audit.py <json> <said>`.

Findings fail. What was not asked about is told; and a failure of pip-audit fails too, unless no service was reached.
"""

import json
import re
import sys
from pathlib import Path

# Known vulnerabilities that do no harm here: number -> reason.
ACCEPTED: dict[str, str] = {}
UNREACHED = re.compile(r"connection|max retries|timed? ?out|resolve|unreachable|proxy|HTTP ?Error|404|50\d", re.I)


def main() -> None:
    text, said = (Path(path).read_text(encoding="utf-8") for path in sys.argv[1:])
    try:
        packages = json.loads(text)["dependencies"]
    except ValueError:
        packages = []
        if not UNREACHED.search(said):
            sys.exit(f"pip-audit failed: {said.strip()[-500:]}")
    asked = [each for each in packages if "vulns" in each]
    found = [(each, vulnerability) for each in asked for vulnerability in each["vulns"]]
    for each, vulnerability in found:
        number = vulnerability["id"]
        mended = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{each['name']} {each['version']}: {number}, {ACCEPTED.get(number, f'mended in {mended}')}")
    if not asked:
        print("no service that knows vulnerabilities can be asked: requirements.txt IS NOT AUDITED", file=sys.stderr)
    elif left := [each["name"] for each in packages if "vulns" not in each]:
        print(f"NOT AUDITED, because the service does not know them: {', '.join(left)}", file=sys.stderr)
    if any(vulnerability["id"] not in ACCEPTED for _, vulnerability in found):
        sys.exit("requirements.txt has known vulnerabilities: raise those versions, or accept them in .ci/audit.py")


if __name__ == "__main__":
    main()
