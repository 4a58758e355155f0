"""MLflow as a mirror of the stages' trainings, and the lineage of each model.

Imports only runtime.

    backfill      MLflow runs rebuilt from a stage's output files
    lineage       fingerprints of files and models
    mlflow_store  the checkout's own MLflow store
    outbox        a durable queue of MLflow entries, one file per run
    provenance    the code, params, data and calls behind a model version
    registry      the registered model and its versions
    runs          the MLflow run of a training
"""
