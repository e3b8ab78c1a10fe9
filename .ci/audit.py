"""What the JSON of pip-audit (standard input) comes to: findings fail, and what was not asked about is said."""

import json
import sys

# Known vulnerabilities that do no harm here: number -> reason.
ACCEPTED: dict[str, str] = {}


def main() -> None:
    try:
        packages = json.load(sys.stdin)["dependencies"]
    except ValueError:  # pip-audit has ended with an error, above all without a connection
        packages = []
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
