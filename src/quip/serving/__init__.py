"""A model version and its users: promote, say, serve, export.

Imports only reporting, evaluation, training, critics, llm, data, models, tracking, core and
runtime.

    batching       dynamic batching of requests
    export         a student as a folder for other programs
    gguf_check     a GGUF file against its student
    gguf_writer    a student as a GGUF file
    loaded_models  the students that the server holds
    paraphrase     paraphrases of a sentence
    promotion      whether a challenger becomes champion
    pyfunc_model   the model as MLflow loads it
    server         the HTTP server of `quip serve`
"""
