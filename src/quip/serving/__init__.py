"""Use of a trained student: promotion to champion, paraphrases, the HTTP server, export.

Imports only reporting, evaluation, training, critics, llm, data, models, tracking, core and
runtime.

    batching       dynamic batching of requests
    export         a student as a folder for other programs
    gguf_check     comparison of a GGUF file with its student
    gguf_writer    a student as a GGUF file
    loaded_models  the students that the server has loaded
    paraphrase     paraphrases of a sentence
    promotion      the gate between challenger and champion
    pyfunc_model   the model class that MLflow loads
    server         the HTTP server of `quip serve`
"""
