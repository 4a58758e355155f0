"""meaning: embedding similarity of texts to their literals, and of an author's texts to each other.

The cosine between all-MiniLM-L6-v2 embeddings of the literal and of the text is computed for every
arm, the teacher, the copy and best-of-n. It is a cheap signal and no judge: a joke may keep the
words and lose the event. The mean cosine between an author's texts on a split grows when a student
writes one joke for all inputs.

    python -m quip.stages.meaning --verdicts data/verdicts --out data/meaning.jsonl \
        --similarity data/similarity.json
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import Critique, Meaning
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    from quip.models.embeddings import cosines, self_similarity, vectors

    args = stage.arguments(__doc__, argv, "verdicts", "out", "similarity")
    texts = judged_texts(Path(args.verdicts))
    literals = vectors([literal for literal, _ in texts.values()])
    embedded = vectors([text for _, text in texts.values()])
    rows = [
        Meaning(name=name, input=key, split=split, cosine=round(value, 4))
        for (name, split, key), value in zip(texts, cosines(literals, embedded), strict=True)
    ]
    write_rows(args.out, rows)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (name, split, _) in enumerate(texts):
        places[name, split].append(place)
    similarity: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, split), group in places.items():
        similarity[name][split] = round(self_similarity(embedded[group]), 4)
    write_json(args.similarity, similarity)
    stage.print_counts("meaning", {"texts": len(rows)})


def judged_texts(folder: Path) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(author, split, input) -> (literal, text), from every verdict against the teacher."""
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if path.name == "duel.jsonl":
            continue
        for row in read_rows(path, Critique):
            found[row.name_b, row.split, row.input] = (row.literal, row.b)
            if row.name_a != "teacher":
                found[row.name_a, row.split, row.input] = (row.literal, row.a)
    return found


if __name__ == "__main__":
    stage.run(main)
