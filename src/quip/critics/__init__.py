"""Which of two texts is better.

Imports only llm, data, models, tracking, core and runtime.

    cloze            the likelier text in a template
    comparison       what a critic is asked and what it answers
    critic           asks the critic that params.yaml names
    critic_kinds     kinds of critics and their settings
    debiasing        two answers, one in each order, as one preference
    judges           asks every judge about the same pairs
    learned          asks a reward model
    multiple_choice  multiple-choice prompting
    pair_selection   which texts of an input are compared
    panel            several critics combined by logistic regression
    prompted         asks an endpoint, by multiple choice or cloze
    ranking          comparisons as rankings and training pairs
    reward_model     a model that scores one text
    unproven_gate    refuses a critic that is not shown to beat chance
"""
