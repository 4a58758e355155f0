"""Measures of verdicts, texts and critics, and studies with people.

Imports only training, critics, llm, data, models, tracking, core and runtime.

    alarms                 limits that mark a collapsed arm
    blind_study            the page of blind pairs for people
    blind_study_results    people's answers to that page
    critic_audit           agreement and bias of a critic on gold pairs
    critic_comparison      critics compared on the gold pairs
    critic_learning_curve  a learned critic by its number of votes
    human_agreement        critics against pairs that people graded
    leaderboard            arms compared by all verdicts
    metrics/               pure arithmetic
    published_results      the paper's win-tie rates beside a run's
    safety_screen          texts that a person should see first
    text_evaluation        which texts are measured
"""
