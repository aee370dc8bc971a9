"""The program before its parts are loaded: Ctrl-C until then ends it at once, without a word.

Defined here and only here. Used by the installed `timefs`. Main thread only.
"""

import signal
from importlib import import_module


def start() -> None:
    """Load the command line and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    import_module("timefs.cli.main").main()
