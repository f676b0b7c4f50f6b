"""`python -m isoproxy` is the command `isoproxy`."""

import sys

from isoproxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
