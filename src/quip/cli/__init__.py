"""The command `quip` and the modules behind its verbs.

Imports only stages, serving, reporting, evaluation, training, critics, llm, data, models, tracking,
core and runtime.

    calls           `quip calls`
    doctor          `quip doctor`
    doctor_checks   the checks of endpoints, disk, stores and locks
    examples        `quip examples`
    human           `quip human`
    main            the command and its other verbs
    model_verbs     the verbs about registered versions
    new_project     `quip init`
    plan            `quip plan`
    plan_data       the data that a plan counts with
    recordings      `quip calls export --stage`
    skill_packs     packs of prompts, texts and params for one skill
    terminal_input  input and output of `quip say`
    try_run         `quip try`
"""
