"""prepare: literals from every kind of source, checked, de-duplicated, disjoint."""

import io
import json
import random
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz, process

from quip.core.jsonl import read_rows
from quip.core.records import LiteralText
from quip.data.deduplication import SimilarityIndex
from quip.runtime.errors import DataError, ParamsError
from quip.stages.prepare import main

RAW = Path(__file__).parents[2] / "data" / "raw"
SECTION = {
    "source": "shipped",
    "ood_source": "shipped",
    "column": None,
    "ood_column": None,
    "limit": {"train": None, "val": None, "test": None, "ood": None},
    "min_words": 4,
    "max_words": 15,
    "near_duplicate": 90,
    "fractions": {"val": 0.2, "test": 0.2},
    "seed": 1,
}
THINGS = ["kettle", "ladder", "piano", "tomato", "passport", "umbrella", "violin", "rocket"]
DEEDS = ["I dropped my {} in front of everyone", "we sold the old {} to a neighbour for nothing"]
PLACES = ["at the station", "before breakfast", "in the rain", "during the wedding"]
TEXTS = [f"{deed.format(thing)} {place}." for thing in THINGS for deed in DEEDS for place in PLACES]


def shipped_rows():
    splits = ["train"] * 40 + ["val"] * 12 + ["test"] * 12
    rows = zip(splits, TEXTS, strict=True)
    return [
        {"id": f"s{n:03}", "split": split, "emotion": "proud", "text": text}
        for n, (split, text) in enumerate(rows)
    ]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project folder with shipped data; `place(name, text)` adds a file and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    write("data/raw/literals.jsonl", jsonl(shipped_rows()))
    write("data/raw/ood.jsonl", jsonl([{"id": "c1", "text": "is the lift broken again today"}]))
    return write


@pytest.fixture
def run(place, tmp_path):
    def run(**changes):
        section = {"near_duplicate": 100} | changes
        place("params.yaml", yaml.safe_dump({"prepare": SECTION | section}))
        main(["--raw", "data/raw", "--out", "out", "--metrics", "metrics.json"])
        return json.loads((tmp_path / "metrics.json").read_text())

    return run


def rows(split):
    return read_rows(f"out/{split}.jsonl", LiteralText)


def everything():
    return {row.id: row.text for split in ("train", "val", "test") for row in rows(split)}


def test_shipped_splits_stay_as_they_are(run):
    metrics = run()
    assert metrics == {
        "read": {"source": 64, "ood_source": 1},
        "splits": {"train": 40, "val": 12, "test": 12, "ood": 1},
        "dropped": {},
    }
    assert {row.id for row in rows("val")} == {f"s{n:03}" for n in range(40, 52)}
    assert {row.emotion for row in rows("test")} == {"proud"}
    assert rows("ood")[0].id == "c1"


def test_the_order_of_the_input_changes_nothing(run, place, tmp_path):
    limit = {"train": 9, "val": 5, "test": 5, "ood": 1}
    assert run(limit=limit, near_duplicate=93)["dropped"]["near_duplicate"] > 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shuffled = shipped_rows()
    random.Random(3).shuffle(shuffled)
    place("data/raw/literals.jsonl", jsonl(shuffled))
    run(limit=limit, near_duplicate=93)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


def test_a_higher_limit_only_adds_rows(run):
    metrics = run(limit={"train": 5, "val": 3, "test": 2, "ood": None})
    few = rows("train")
    assert metrics["splits"] == {"train": 5, "val": 3, "test": 2, "ood": 1}
    assert metrics["dropped"] == {"over_limit": 35 + 9 + 10}
    run(limit={"train": 10, "val": 3, "test": 2, "ood": None})
    assert rows("train")[:5] == few
    assert [row.id for row in few] != sorted(row.id for row in few)


def test_the_seed_chooses_the_rows(run):
    chosen = []
    for seed in (1, 2):
        run(limit={"train": 10, "val": 3, "test": 2, "ood": None}, seed=seed)
        chosen.append({row.id for row in rows("train")})
    assert chosen[0] != chosen[1]


def test_equal_texts_stay_in_the_split_that_is_worth_most(run, place):
    twins = [("t1", "train"), ("v1", "val"), ("e1", "test"), ("t2", "train")]
    text = ["My goat ate the post.", "my goat ate the post", "My goat: ate the post!"]
    extra = [
        {"id": name, "split": split, "text": text[n % 3]} for n, (name, split) in enumerate(twins)
    ]
    place("data/raw/literals.jsonl", jsonl([*shipped_rows(), *extra]))
    place(
        "data/raw/ood.jsonl",
        jsonl(
            [
                {"id": "c1", "text": "my goat ate THE post"},
                {"id": "c2", "text": "so who is driving tonight"},
            ]
        ),
    )
    metrics = run()
    assert metrics["dropped"] == {"duplicate": 4}
    assert "e1" in {row.id for row in rows("test")}


def test_near_duplicates_leave_train_first_then_val(run, place, capsys):
    base = "My neighbour's goat climbed onto the roof of our car{}"
    extra = [
        {"id": "e1", "split": "test", "text": base.format(".")},
        {"id": "v1", "split": "val", "text": base.format(" again.")},
        {"id": "t1", "split": "train", "text": base.format(" today.")},
        {"id": "t2", "split": "train", "text": "The goat next door gave our car a sunroof."},
    ]
    place("data/raw/literals.jsonl", jsonl([*extra, *reversed_apart()]))
    metrics = run(near_duplicate=85)
    assert metrics["dropped"] == {"near_duplicate": 2}
    assert {"e1", "t2"} <= set(everything())
    assert not {"v1", "t1"} & set(everything())
    assert "first near_duplicate: \"My neighbour's goat" in capsys.readouterr().out


def reversed_apart():
    """One unlike row a split, so that none is left empty."""
    return [
        {"id": "z1", "split": "val", "text": "Nobody came to my birthday lunch."},
        {"id": "z2", "split": "train", "text": "A parcel arrived for somebody else."},
    ]


def test_an_id_used_twice_is_dropped_and_counted(run, place):
    place(
        "data/raw/literals.jsonl",
        jsonl(
            [
                *shipped_rows(),
                {"id": "s063", "split": "train", "text": "The choir sang in the wrong church."},
            ]
        ),
    )
    assert run()["dropped"] == {"duplicate_id": 1}


def test_length_and_empty_texts_are_counted(run, place):
    extra = ["too short", "\U0001f44d \U0001f44d", " ".join(["word"] * 16)]
    more = [{"id": f"x{n}", "split": "train", "text": text} for n, text in enumerate(extra)]
    place("data/raw/literals.jsonl", jsonl([*shipped_rows(), *more]))
    assert run()["dropped"] == {"empty": 1, "too_long": 1, "too_short": 1}


def test_a_csv_file_of_the_user(run, place):
    lines = ["mood,story", *(f'3,"{text}"' for text in TEXTS)]
    place("my.csv", "\n".join(lines))
    metrics = run(source="my.csv", column="story")
    assert sum(metrics["splits"].values()) == len(TEXTS) + 1
    assert sorted(everything().values()) == sorted(TEXTS)
    ids = set(everything())
    place("my.csv", "\n".join([lines[0], *reversed(lines[1:])]))
    run(source="my.csv", column="story")
    assert set(everything()) == ids


@pytest.mark.parametrize("name", ["my.tsv", "my.csv"])
def test_other_separators(run, place, name):
    separator = "\t" if name == "my.tsv" else ";"
    lines = ["n;content", *(f"{n};{text}" for n, text in enumerate(TEXTS))]
    place(name, "\n".join(lines).replace(";", separator))
    run(source=name)
    assert len(everything()) == len(TEXTS)


def test_jsonl_json_and_text_files_of_the_user(run, place):
    place(
        "my.jsonl",
        jsonl(
            [{"sentence": text, "split": "dev"} for text in TEXTS[:3]]
            + [{"sentence": text} for text in TEXTS[3:]]
        ),
    )
    place("my.json", json.dumps([{"literal": text} for text in TEXTS]))
    place("my.txt", "\ufeff" + "\r\n".join(TEXTS))
    for name in ("my.jsonl", "my.json", "my.txt"):
        run(source=name)
        assert sorted(everything().values()) == sorted(TEXTS)


def ed(texts, start=0):
    """EmpatheticDialogues as published: two utterances a conversation, commas written out."""
    lines = ["conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"]
    for n, text in enumerate(texts, start=start):
        prompt = text.replace(" ", "_comma_ ", 1)
        for turn in (1, 2):
            lines.append(f'hit:{n}_conv:{n},{turn},proud,{prompt},{n},He said "hi,5|5|5_2|2|5,')
    return "\n".join(lines) + "\n"


PARTS = {"train": TEXTS[:40], "valid": TEXTS[40:52], "test": TEXTS[52:]}


def test_empathetic_dialogues_folder_is_split_as_published(run, place):
    for n, (name, texts) in enumerate(PARTS.items()):
        place(f"ed/{name}.csv", ed(texts, start=100 * n))
    metrics = run(source="ed")
    assert metrics["splits"] == {"train": 40, "val": 12, "test": 12, "ood": 1}
    first = next(row for row in rows("train") if row.id == "hit:0_conv:0")
    assert first.text == TEXTS[0].replace(" ", ", ", 1)
    assert first.emotion == "proud"


def test_empathetic_dialogues_archive(run, tmp_path):
    with tarfile.open(tmp_path / "ed.tar.gz", "w:gz") as archive:
        for n, (name, texts) in enumerate(PARTS.items()):
            data = ed(texts, start=100 * n).encode()
            member = tarfile.TarInfo(f"empatheticdialogues/{name}.csv")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert run(source="ed.tar.gz")["splits"] == {"train": 40, "val": 12, "test": 12, "ood": 1}


def test_one_part_alone_is_divided_by_fractions(run, place):
    place("train.csv", ed(TEXTS))
    splits = run(source="train.csv")["splits"]
    assert splits["train"] > splits["test"] > 0
    assert splits["val"] > 0


CHATS = [
    {
        "id": "137",
        "summary": "Ann sold a car. Bob will come.",
        "dialogue": "Ann: We sold the car on Monday. Can you bring Mr. Hill along?\r\n"
        'Bob: <file_photo>\r\nBob: ok\r\nBob: Sure, I said "maybe" to him',
    },
    {"id": "138", "summary": "Cy waits.", "dialogue": "Cy: I wait here since 7:30 in the rain"},
]
SENTENCES = {
    "ood-137-1": "We sold the car on Monday.",
    "ood-137-2": "Can you bring Mr. Hill along?",
    "ood-137-4": 'Sure, I said "maybe" to him',
    "ood-138-1": "I wait here since 7:30 in the rain",
}


def test_chats_give_the_sentences_of_their_messages(run, place, capsys):
    place("samsum.json", json.dumps(CHATS))
    run(ood_source="samsum.json")
    assert {row.id: row.text for row in rows("ood")} == SENTENCES
    assert "literals 5, chats 2" in capsys.readouterr().out


def test_chats_stay_together_when_they_are_divided(run, place):
    chats = [
        {"id": str(n), "summary": "", "dialogue": f"A: {TEXTS[2 * n]}\nB: {TEXTS[2 * n + 1]}"}
        for n in range(32)
    ]
    place("chats.json", json.dumps(chats))
    run(source="chats.json")
    homes = [{row.id.split("-")[0] for row in rows(split)} for split in ("train", "val", "test")]
    assert not homes[0] & homes[1]
    assert not homes[0] & homes[2]
    assert not homes[1] & homes[2]


def mangled(chats):
    """A CSV export that a semicolon spreadsheet has quoted and padded line by line."""
    text = io.StringIO()
    for chat in chats:
        quoted = chat["dialogue"].replace("\r\n", "\n").replace('"', '""')
        text.write(f'{chat["id"]},"{quoted}",{chat["summary"]}\n')
    lines = text.getvalue().splitlines()
    outer = ['"' + line.replace('"', '""') + '"' if '"' in line else line for line in lines]
    return "\r\n".join(line + ";;" for line in ["id,dialogue,summary", *outer]) + "\r\n"


def test_mangled_chat_export_is_read_line_by_line(run, place, capsys):
    place("chats.csv", mangled(CHATS))
    run(ood_source="chats.csv")
    assert {row.id: row.text for row in rows("ood")} == SENTENCES
    assert "chats 2" in capsys.readouterr().out


def test_the_hub_is_asked_by_name(run, monkeypatch):
    asked = []

    def load_dataset(name, revision=None):
        asked.append(name)
        rows = {
            part: [
                {"conv_id": f"{part}{n}", "prompt": text, "context": "proud"}
                for n, text in enumerate(texts)
            ]
            for part, texts in PARTS.items()
        }
        return {"train": rows["train"], "validation": rows["valid"], "test": rows["test"]}

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(load_dataset))
    splits = run(source="empatheticdialogues")["splits"]
    assert splits == {"train": 40, "val": 12, "test": 12, "ood": 1}
    assert asked == ["facebook/empathetic_dialogues"]


def fake_datasets(load_dataset):
    errors = SimpleNamespace(DatasetsError=type("DatasetsError", (Exception,), {}))
    return SimpleNamespace(load_dataset=load_dataset, exceptions=errors)


def test_an_unreachable_hub_names_the_remedy(run, monkeypatch):
    def load_dataset(name, revision=None):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(load_dataset))
    with pytest.raises(DataError, match=r"prepare\.ood_source: 'samsum'.*Download corpus\.7z") as e:
        run(ood_source="samsum")
    assert "\n" not in str(e.value)


MISTAKES = {
    "empty.csv": ("", r"empty\.csv, line 1, column 1: the file holds no rows"),
    "header.csv": ("text\n", r"header\.csv, line 1, column 1: the file holds no rows"),
    "open.csv": (
        'n,text\n1,fine\n2,"never closed\n3,more\n',
        r"open\.csv, line 3, column 3: not CSV .*Close the quotation mark",
    ),
    "ragged.csv": (
        "n,text\n1,one\n2,two, and more\n",
        r"ragged\.csv, line 3, column 3: 3 cells, but the header names 2 columns \(n, text\)",
    ),
    "latin.csv": (b"text\nI saw a caf\xe9\n", r"latin\.csv, line 2, column 12: not UTF-8"),
    "which.csv": ("mood,story\n1,x\n", r"which column holds the literals\? Columns: mood, story"),
    "bad.jsonl": ('{"text": "a"}\n{"text": }\n', r"bad\.jsonl, line 2, column 10: not JSON"),
    "list.jsonl": ('["a"]\n', r"list\.jsonl, line 1, column 1: expected a JSON object, found list"),
    "number.jsonl": ('{"text": 3}\n', r"line 1, column 'text': expected a text, found int"),
    "bad.json": ('[{"text": "a"},\n x]', r"bad\.json, line 2, column 2: not JSON"),
    "object.json": ("{}", r"object\.json, line 1, column 1: expected a JSON list"),
    "split.jsonl": (
        '{"text": "a", "split": "trian"}\n',
        r"split\.jsonl, line 1, column 'split': 'trian' is not one of train",
    ),
    "ed.csv": (
        "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\nhit:1,1,sad\n",
        r"ed\.csv, line 2, column 4: 3 cells, but the header names 8 columns",
    ),
    "old.xls": ("x", r"old\.xls: cannot read '\.xls' files. Wanted: \.csv"),
    "broken.tar.gz": ("not a tar", r"broken\.tar\.gz: not a readable tar archive"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_a_file(run, place, name):
    content, message = MISTAKES[name]
    place(name, content)
    with pytest.raises(DataError, match=message) as error:
        run(source=name)
    assert "\n" not in str(error.value)


def test_a_missing_column(run, place):
    place("my.csv", "mood,story\n1,x\n")
    with pytest.raises(
        DataError, match=r"no column 'stroy' \(prepare\.column\)\. Columns: mood, st"
    ):
        run(source="my.csv", column="stroy")


def test_a_missing_source(run):
    with pytest.raises(
        DataError, match=r"prepare\.source: 'shiped' is neither .*Did you mean 'shipped'"
    ):
        run(source="shiped")


def test_a_folder_without_parts(run, place):
    place("folder/readme.md", "hello")
    with pytest.raises(DataError, match=r"folder: holds no train\.csv"):
        run(source="folder")


def test_a_split_that_ends_up_empty_stops_the_stage(run, place, tmp_path):
    place("my.txt", f"{TEXTS[0]}\nno\n")
    with pytest.raises(DataError, match=r"no rows are left for '\w+' of 3 read .*too_short 1"):
        run(source="my.txt")
    assert not (tmp_path / "out").exists()


def test_fractions_must_leave_room_to_train(run):
    with pytest.raises(ParamsError, match=r"prepare\.fractions.*must stay below 1"):
        run(fractions={"val": 0.5, "test": 0.5})


@given(
    st.lists(st.text("ab cde9\u00e9\U0001d4b3", max_size=12), max_size=8),
    st.lists(st.text("ab cde9\u00e9\U0001d4b3", max_size=12), max_size=8),
    st.sampled_from([50, 80, 90, 100]),
)
def test_the_letter_filter_loses_no_near_duplicate(texts, against, cutoff):
    every = [
        max((fuzz.ratio(text, other, score_cutoff=cutoff) for other in against), default=0.0)
        for text in texts
    ]
    assert SimilarityIndex(against).highest(texts, cutoff) == pytest.approx(every, abs=1e-4)


def test_the_letter_filter_spares_most_comparisons(monkeypatch):
    lines = (RAW / "literals.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    compared = []
    monkeypatch.setattr(
        process, "cpdist", lambda left, right, **_: compared.append(len(left)) or [0.0] * len(left)
    )
    SimilarityIndex(texts[:200]).highest(texts[200:], 90)
    assert 0 < sum(compared) < 0.2 * 200 * len(texts[200:])
