"""What every result rests on: rows, files, params, texts.

Imports only runtime.

    jsonl    atomic reading and writing of rows and JSON documents
    params   sections of params.yaml as frozen models
    records  the rows that stages exchange
    seeds    the seed of one row
    text     equality, length and digests of texts
"""
