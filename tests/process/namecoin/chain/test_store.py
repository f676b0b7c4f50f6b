"""What the store wrote outlives the process that wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.chain.store import HeaderStore
from tests.unit.namecoin.chain.test_store import header

_WRITER = """
import sys
from pathlib import Path
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.chain.params import REGTEST
store = HeaderStore(Path(sys.argv[1]), REGTEST, REGTEST.anchor)
store.load()
height = 1
while True:
    raw = b"".join(h.to_bytes(80, "little") for h in range(height, height + 7))
    store.replace_above(height - 1, raw, b"\\0\\0\\1\\1\\0\\1\\1")
    height += 7
    print(height, flush=True)
"""


def test_after_kill_9_what_was_written_is_there(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(20):
            reported = int(writer.stdout.readline())
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
        _, up, proven = store.load()
        store.clear()
        store.close()
        assert len(up) >= reported - 1
        assert up == [header(height) for height in range(1, len(up) + 1)]
        assert list(proven[: reported - 1]) == [0, 0, 1, 1, 0, 1, 1] * (reported // 7)
        assert not any(at % 7 in (0, 1, 4) for at, is_proven in enumerate(proven) if is_proven)
