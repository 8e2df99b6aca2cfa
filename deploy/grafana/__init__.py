"""The dashboards, as code. `python -m deploy.grafana` writes its JSON."""
