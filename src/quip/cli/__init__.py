"""The command `quip`, and what only a command does.

Imports only stages, serving, reporting, evaluation, training, critics, llm, data, models, tracking,
core and runtime.

    calls           `quip calls`
    doctor          `quip doctor`
    doctor_checks   disk, stores and locks
    examples        `quip examples`
    human           `quip human`
    main            the verbs
    new_project     `quip init`
    plan            `quip plan`
    recordings      `quip calls export --stage`
    skill_packs     packs of prompts, data and params
    terminal_input  input and output of `quip say`
    try_run         `quip try`
"""
