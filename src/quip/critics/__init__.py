"""Critics: which of two texts is better.

Imports only llm, data, models, tracking, core and runtime.

    cloze            the text with the higher likelihood in a template
    comparison       two texts for a critic, and its answers
    critic_kinds     asks a critic, by its kind
    critic_settings  section `critic`, short forms and names of critics
    debiasing        the answers in both orders as one preference
    judges           asks every judge about the same pairs
    learned          asks the reward model
    multiple_choice  multiple-choice prompting
    pair_selection   texts of an input that the critic compares
    panel            several critics combined by logistic regression
    prompted         asks an endpoint, by multiple choice or cloze
    ranking          rankings and training pairs from comparisons
    reward_model     a model that scores one text
    unproven_gate    refuses a critic that is not shown to beat chance
"""
