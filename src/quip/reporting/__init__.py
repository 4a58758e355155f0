"""Results as sentences, figures and pages.

Imports only evaluation, training, critics, llm, data, models, tracking, core and runtime.

    call_costs     calls and costs by stage and model
    caveats        reasons to doubt the numbers of a run
    claims         the claim that the numbers of a run support
    figures        the figures of the report
    glossary       the definition of every number
    marked_block   a block of a page that a command writes
    mlflow_pages   descriptions and samples in MLflow
    model_card     the model card of a student
    results_table  the table that `evaluate` prints
    run_results    everything a run measured, read from disk
    svg_plots      plots as SVG text
    tables         rows of the report's tables
"""
