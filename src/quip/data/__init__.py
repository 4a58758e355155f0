"""Data: sentences, graded pairs, votes and teacher replies, read, checked and cleaned.

Imports only tracking, core and runtime.

    deduplication   duplicates and near-duplicates among literals
    drop_counts     counts of rows that a stage drops
    graded_pairs    pairs graded by people, from files of four forms
    language        language identification: whether a text is English
    readers         file readers: CSV, TSV, JSON, JSONL and plain text as records
    refusals        refusals, safety warnings and prompt echoes among a teacher's texts
    reply_parsing   parser of a teacher's reply into paraphrases
    sources         sources of literals: shipped files, public data sets, the user's files
    splits          train, val, test and ood
    training_pairs  a teacher's replies as training pairs and references
    votes           people's votes as gold pairs
"""
