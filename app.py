"""The CDK application: `cdk synth`, or `python app.py` where no CDK command line is installed.

Settings are context values under `attestry:`, see `infra/config.py` and docs/deploy.md.
"""

from __future__ import annotations

from infra.stack import build_app

if __name__ == "__main__":
    build_app().synth()
