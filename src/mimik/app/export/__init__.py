"""Export of models and persons as ONNX graphs."""

import os

# ONNX Runtime would store a client ID in the user's home and report to an analytics service; it reads this when loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
