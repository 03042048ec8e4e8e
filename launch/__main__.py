"""`python -m ringgrad.launch` is `ringrun`."""

import sys

from .cli import main

sys.exit(main())
