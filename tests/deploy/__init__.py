"""The files of `deploy/`, checked without a container runtime and without systemd as the system's manager."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
