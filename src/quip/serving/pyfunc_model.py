"""MLflow model class of the registered student: a list of literal sentences in, paraphrases out.

MLflow copies this file into each version ("models from code") and runs it when the version is
loaded, so that nothing is pickled. The `quip` package must be installed where it is served.
"""

from __future__ import annotations

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Paraphraser(PythonModel):
    """`predict(["I missed my bus."])`; the options are those of
    `quip.serving.paraphrase.paraphrases`."""

    def load_context(self, context: Any) -> None:
        from quip.models import student

        self.student = student.load(context.artifacts["model"])

    def predict(
        self, context: Any, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        from quip.serving import paraphrase
        from quip.tracking import registry

        return paraphrase.paraphrases(
            self.student, model_input, **{**registry.SERVING_OPTIONS, **(params or {})}
        )


set_model(Paraphraser())
