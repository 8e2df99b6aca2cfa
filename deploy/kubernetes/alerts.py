"""The alerts as an object of the Prometheus operator."""

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).parents[1]
RULES = DEPLOY / "prometheus" / "rules.yml"
OBJECT = DEPLOY / "kustomize" / "components" / "prometheus-rules" / "rules.yaml"

_HEAD = """\
# Written by `make docs` from deploy/prometheus/rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: lockstep
  labels:
    app.kubernetes.io/part-of: lockstep
spec:
"""


def render() -> str:
    """Returns the object as YAML: the file of rules is its specification."""
    return _HEAD + textwrap.indent(RULES.read_text(), "  ")
