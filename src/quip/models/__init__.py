"""Models on this machine: pinned weights, the student, the embedded engine.

Imports only tracking, core and runtime.

    embeddings        sentence embeddings
    generation        beam answers and nucleus samples of a student
    hardware          cores and number formats
    likelihood        log-probabilities of texts
    llamacpp          the embedded llama.cpp server
    packing           packed rows: many texts in one forward pass of a causal model
    pins              names and sha256 of the trusted model files
    student           the small language model, causal or encoder-decoder
    weights           the cache of pinned model files
    weights_download  download of a pinned file
"""
