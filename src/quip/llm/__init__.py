"""Large models behind an endpoint: scheduled, retried, stored, paid once.

Imports only data, models, tracking, core and runtime.

    batch_api    calls handed in as a batch
    connection   one endpoint in the role of teacher, critic or judge
    costs        prices, counts and the budget
    endpoints    the params sections `endpoints` and `budget`
    http         one HTTP call and what its failure means
    legacy       the call store of earlier versions
    progress     progress of the calls of a stage
    rate_limit   how many calls may be in flight
    reply_store  every reply that was paid for
    requests/    what is asked and what of a reply is believed
    scheduler    the calls of one stage
"""
