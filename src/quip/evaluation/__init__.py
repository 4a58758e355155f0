"""Measures of verdicts, texts and critics, and studies with people.

Imports only training, critics, llm, data, models, tracking, core and runtime.

    alarms                 text measures beyond their limits
    blind_study            the page of blind pairs for people
    blind_study_results    people's answers to that page
    critic_audit           agreement and bias of a critic on gold pairs
    critic_comparison      critics compared on the gold pairs
    critic_learning_curve  agreement of a learned critic by number of votes
    human_agreement        critics against pairs that people graded
    leaderboard            arms compared by all verdicts
    metrics/               pure arithmetic
    published_results      the paper's win-tie rates beside those of a run
    safety_screen          texts that a person should see first
    text_evaluation        measures of the texts by arm and split
"""
