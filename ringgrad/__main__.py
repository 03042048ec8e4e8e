"""`python -m ringgrad` is `ringgrad`."""

import sys

from .command import main

sys.exit(main())
