"""Tables that benchmarks print."""

import sys


def table(title: str, *rows: tuple) -> None:
    """Print a markdown table; the first row names the columns."""
    print(f"\n## {title}\n")
    for number, row in enumerate(rows):
        print(f"| {' | '.join(f'{cell:,.2f}' if isinstance(cell, float) else str(cell) for cell in row)} |")
        if not number:
            print(f"|---|{'---:|' * (len(row) - 1)}")
    sys.stdout.flush()
