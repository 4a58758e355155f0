"""MLflow as a mirror of what the stages do, and where a model came from.

Imports only runtime.

    backfill      runs made from files alone
    lineage       fingerprints of files and models
    mlflow_store  the checkout's own MLflow store
    outbox        a durable queue of MLflow entries, one file per run
    provenance    the code, params, data and calls behind a model version
    registry      the registered model and its versions
    runs          the MLflow run of a training
"""
