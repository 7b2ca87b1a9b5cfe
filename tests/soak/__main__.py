"""`python -m tests.soak`: exit code 0 if everything is where it was, else 1."""

import os

from tests.soak.soak import soak

over = soak(float(os.environ.get("SELECTMQ_SOAK_SECONDS", "1800")), int(os.environ.get("SELECTMQ_SOAK_SEED", "1")))
raise SystemExit("\n".join(over) if over else 0)
