"""What MLflow executes when it loads a registered model ("models from code"): the runtime that it carries."""

from mlflow.models import set_model

from odtrain_runtime.pyfunc import DetectorModel

set_model(DetectorModel())
