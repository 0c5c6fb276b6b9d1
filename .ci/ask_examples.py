"""Waits until the three examples answer at the URL given: `ask_examples.py URL SECONDS`."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request


def ask(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def main() -> int:
    base, patience_s = sys.argv[1], float(sys.argv[2])
    deadline = time.monotonic() + patience_s
    for framework in ("flask", "fastapi", "django"):
        while True:
            try:
                answer = json.loads(ask(f"{base}/{framework}/json"))
                break
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    print(f"{framework}: {error}", file=sys.stderr)
                    return 1
                time.sleep(0.2)
        print(answer)
        if answer["framework"] != framework or answer["url"] != f"{base}/{framework}/json":
            print(f"{framework}: not what was expected", file=sys.stderr)
            return 1
        if ask(f"{base}/{framework}/stream?lines=3&pause=0") != "line 1 of 3\nline 2 of 3\nline 3 of 3\n":
            print(f"{framework}: the stream is not what was expected", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
