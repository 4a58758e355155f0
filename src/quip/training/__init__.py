"""Training of students and of the reward model.

Imports only critics, llm, data, models, tracking, core and runtime.

    brio             the ranking loss on the critic's rankings
    corruptions      worse versions of a paraphrase, made by rule
    distributed      several processes for one training
    dpo              direct preference optimization on the critic's pairs
    loop             a plain training loop
    losses           losses as pure functions of tensors
    reference_model  a reference model's weights, lent to the student
    reward           training of the reward model
    rounds           start and preferences of each round of feedback
    sft              supervised fine-tuning on the teacher's paraphrases
    skipped          arms that params.yaml does not name
    trainer          run, curve, checkpoints and saved model of a training
    trl_trainers     TRL's trainers with packed rows
"""
