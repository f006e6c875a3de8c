"""`python -m mtadiffusion` is `mta`: what a launcher of several processes is given."""

import sys

from mtadiffusion.cli import main

sys.exit(main())
