"""Training of students and of the reward model: SFT, DPO, BRIO, Bradley-Terry.

Imports only critics, llm, data, models, tracking, core and runtime.

    brio             the ranking loss on the critic's rankings
    corruptions      rule-based corruptions of a paraphrase, negatives for the reward model
    distributed      one training in several processes: launch, row shards, gathered results
    dpo              direct preference optimization on the critic's pairs
    loop             a plain training loop
    losses           losses as pure functions of tensors
    reference_model  a reference model's weights, loaded into the student for a while
    reward           training of the reward model
    rounds           start model and feedback file of each round of feedback
    sft              supervised fine-tuning on the teacher's paraphrases
    skipped          placeholder outputs of arms that params.yaml does not name
    trainer          MLflow run, curve, checkpoints and saved model of a training
    trl_trainers     TRL's trainers with packed rows
"""
