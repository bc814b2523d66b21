"""`python -m mammo` is `mammo`."""

import sys

from mammo.cli import main

sys.exit(main())
