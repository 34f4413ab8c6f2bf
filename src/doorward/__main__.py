"""The command ``doorward``, and ``python -m doorward``: quiet from its first moment on."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported ends with one line and exit code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where somebody else decides
        signal.signal(signal.SIGINT, _leave)
    from doorward.cli.app import main as run  # takes a tenth of a second

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _leave(_: int, __: FrameType | None) -> None:
    """End at once: nothing was begun, and imports may take an exception for a library that is not there."""
    os.write(2, b"doorward: interrupted; nothing of this call is kept\n")
    os._exit(130)


if __name__ == "__main__":
    main()
