"""``python -m outlast JOBFILE`` runs one attempt; the supervisor calls it."""

import sys

from ._run import main

sys.exit(main(sys.argv[1]))
