"""Core: what every result depends on. Row types, files, params, seeds, text functions.

Imports only runtime.

    jsonl    reading and atomic writing of rows (JSON lines) and JSON documents
    params   sections of params.yaml as frozen models
    records  the row types that stages exchange
    seeds    the seed of one row
    text     normalisation, length and digests of texts
"""
