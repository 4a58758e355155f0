"""The pipeline: one module a stage, from files to files.

Imports only reporting, evaluation, training, critics, llm, data, models, tracking, core and
runtime.

    align        trains on the critic's preferences
    audit        measures critics on gold pairs
    baseline     trains on without a critic
    candidates   samples the student's attempts
    control      judges texts whose quality is known
    critique     asks the critic about the attempts
    duel         judges the arms against each other
    evaluate     computes every measure
    graded       reads pairs that people graded
    imitation    parses the teacher's replies
    judge        judges an arm against the teacher
    meaning      measures how much of a literal is kept
    pairs        splits graded pairs for the learned critic
    preferences  turns critiques into training pairs
    prepare      makes the splits
    rank         ranks the teacher's paraphrases
    register     registers every student in MLflow
    report       writes the report page
    respond      answers the evaluation inputs
    reward       trains the reward model
    roles        records who plays which role
    safety       screens the texts
    sft          trains on the teacher's paraphrases
    teacher      asks the large model for paraphrases
"""
