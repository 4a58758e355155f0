"""Calls to large models at an endpoint: scheduled, retried, stored and paid once.

Imports only data, models, tracking, core and runtime.

    batch_api     calls submitted as a batch
    budget        the guard of `budget.money`
    call_outputs  the calls of a stage as one of its outputs
    connection    one endpoint in the role of teacher, critic or judge
    costs         prices and the ledger of a stage
    endpoints     the params sections `endpoints` and `budget`
    http          one HTTP call and the kinds of its failure
    progress      progress bar of a stage's calls
    rate_limit    adaptive limit of calls in flight
    recorded      replies from a file in place of an address
    reply_store   the store of paid replies
    requests/     requests, and the checks of their replies
    retries       the retry policy
    scheduler     the online calls of one stage
    session       shared state of the calls of one stage
"""
