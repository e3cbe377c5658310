"""`python -m inpaint_fast` is `inpaint-fast`."""

import sys

from inpaint_fast.cli.main import main

sys.exit(main())
