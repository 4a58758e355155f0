"""Large models behind an endpoint: scheduled, retried, stored, paid once.

Imports only data, models, tracking, core and runtime.

    batch_api     calls handed in as a batch
    budget        no call that could pass `budget.money`
    call_outputs  the calls of a stage as an output of it
    connection    one endpoint in the role of teacher, critic or judge
    costs         prices and counts
    endpoints     the params sections `endpoints` and `budget`
    http          one HTTP call and what its failure means
    progress      progress of the calls of a stage
    rate_limit    how many calls may be in flight
    recorded      replies from a file in place of an address
    reply_store   every reply that was paid for
    requests/     what is asked and what of a reply is believed
    retries       which failed calls are tried again, and when
    scheduler     the calls of one stage
    session       what the calls of one stage share
"""
