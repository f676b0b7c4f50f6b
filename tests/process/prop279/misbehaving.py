"""A name plugin that misbehaves in the way its first argument says; a program for tests."""

from __future__ import annotations

import os
import signal
import sys
import time


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _answer(words: list[str]) -> None:
    """Well-behaved for any name, but for those whose first label names a misdeed."""
    query, name = words[1], words[2]
    what = name.partition(".")[0]
    if what == "never":
        return
    if what == "die":
        os._exit(1)
    if what.startswith("status"):
        _say(f'RESOLVED {query} {what[6:]} "no such thing as {name}"')
    elif what == "spaces":
        _say(f"RESOLVED {query} 0 two words")
    elif what == "empty":
        _say(f"RESOLVED {query} 0")
    elif what == "twice":
        _say(f"RESOLVED {query} 0 192.0.2.1\nRESOLVED {query} 0 192.0.2.2")
    elif what == "strange":
        _say(f"\nRESOLVED 999999 0 x.test\nRESOLVED nan 0 x\nHELLO\n\nRESOLVED {query} 0 ok.test")
    elif what == "env":
        _say(f"RESOLVED {query} 0 {os.environ['TOR_NS_STATE_LOCATION'].strip('/')}.test")
    elif what == "flood":
        while True:
            sys.stdout.write("FLOOD of words\n" * 1000)
    else:
        _say(f"RESOLVED {query} 0 {what}.test")


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else "good"
    sys.stderr.write("could not look up secret.bit for id 6f-1 at 127.0.0.1\n" * 100)
    sys.stderr.flush()
    if mode == "no-init":
        time.sleep(3600)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say(
        {"bad-init": "HELLO", "version": "INIT 9 0", "refusing": 'INIT 1 2 "no"'}.get(
            mode, "INIT 1 0"
        )
    )
    if mode in ("frozen", "deaf"):
        time.sleep(3600)
    if mode == "short":
        return
    for line in sys.stdin:
        words = line.split()
        if words[0] == "RESOLVE":
            _answer(words)
        elif words[0] == "CANCEL" and mode == "good":
            _say(f"CANCELED {words[1]}")


if __name__ == "__main__":
    main()
