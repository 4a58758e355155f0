"""Sentences, graded pairs and votes: read, checked, cleaned.

Imports only tracking, core and runtime.

    deduplication  duplicates and near-duplicates among literals
    drop_counts    counts of rows that a stage leaves out
    graded_pairs   pairs graded by people, whatever their file's form
    language       whether a text is English
    readers        CSV, TSV, JSON, JSONL and plain text as records
    refusals       texts that are no paraphrase
    reply_parsing  a teacher's reply as paraphrases
    sources        where literals come from
    splits         train, val, test and ood
    votes          people's votes as gold pairs
"""
