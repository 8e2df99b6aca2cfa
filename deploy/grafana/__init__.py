"""The dashboard, as code. `python -m deploy.grafana` writes its JSON."""
