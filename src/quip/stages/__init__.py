"""The pipeline: one module a stage, from files to files.

Imports only reporting, evaluation, training, critics, llm, data, models, tracking, core and
runtime.

    align        trains on the critic's preferences or rankings or rankings
    audit        measures critics on gold pairs
    baseline     trains on without a critic
    candidates   samples candidates from the student
    control      judges control texts of known quality
    critique     asks the critic to compare candidates
    duel         judges the arms against each other
    evaluate     computes win-tie rates, ratings and text measures
    graded       reads pairs that people graded
    imitation    parses the teacher's replies
    judge        judges an arm against the teacher
    meaning      measures similarity of texts and literals
    pairs        splits graded pairs for the learned critic
    preferences  turns critiques into training pairs
    prepare      checks, de-duplicates and splits the literals
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
