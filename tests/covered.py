"""What the tests run of the Python code: a line for each file below the limit, and the whole. See `make coverage`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

LIMIT = 90  # per cent of a file's lines


def main(path: str) -> None:
    """Print a report of coverage.json."""
    report = json.loads(Path(path).read_text())
    shares = {name: each["summary"]["percent_covered"] for name, each in report["files"].items()}
    for name, share in sorted(shares.items(), key=lambda item: item[1]):
        if share < LIMIT:
            print(f"{share:5.1f} %  {name}")
    below = sum(share < LIMIT for share in shares.values())
    print(f"{report['totals']['percent_covered']:5.1f} %  of all; {below} of {len(shares)} files are below {LIMIT} %")


if __name__ == "__main__":
    main(sys.argv[1])
