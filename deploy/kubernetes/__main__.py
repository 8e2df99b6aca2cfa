"""Writes the generated Kubernetes files. A test fails when they are behind."""

import shutil

from deploy.kubernetes import alerts, chart

if __name__ == "__main__":
    alerts.OBJECT.write_text(alerts.render())
    shutil.rmtree(chart.FOLDER / "templates", ignore_errors=True)
    (chart.FOLDER / "templates").mkdir(parents=True)
    for name, text in chart.render().items():
        (chart.FOLDER / name).write_text(text)
