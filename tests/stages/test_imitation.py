"""imitation: which paraphrases of the teacher are kept, and the reasons for the others."""

import json

import pytest
import yaml

from quip.core.jsonl import read_rows, write_rows
from quip.core.records import Exemplar, Reference, Reply, TrainingPair
from quip.data.refusals import refuses, warns
from quip.data.training_pairs import drop_reason
from quip.runtime.errors import DataError, ParamsError
from quip.stages.imitation import Params, main

LITERAL = "I missed my bus this morning."
GOOD = "My bus and I have decided to see other people."
OTHER = "The bus was punctual, which only one of us can say."
SECTION = {"per_input": 2, "min_words": 4, "max_words": 20, "copy_ratio": 90, "max_drop_share": 0.5}


def reply(name, text, split="train", literal=LITERAL, reason="stop"):
    return Reply(input=name, split=split, literal=literal, text=text, finish_reason=reason)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(replies, exemplars=(), **changes):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"imitation": SECTION | changes}))
        write_rows("replies.jsonl", replies)
        argv = ["--replies", "replies.jsonl", "--out", "out", "--metrics", "metrics.json"]
        if exemplars:
            write_rows("exemplars.jsonl", exemplars)
            argv += ["--exemplars", "exemplars.jsonl"]
        main(argv)
        return json.loads((tmp_path / "metrics.json").read_text())

    return run


def test_training_inputs_become_pairs_and_the_others_references(run):
    metrics = run(
        [
            reply("a", f"1. {GOOD}\n2. {OTHER}"),
            reply("b", f"Sure! 1. {GOOD} 2. {OTHER}", "test"),
            reply("c", f"- {OTHER}\n- {GOOD}", "ood"),
        ]
    )
    pairs = read_rows("out/pairs.jsonl", TrainingPair)
    references = read_rows("out/references.jsonl", Reference)
    assert [(pair.input, pair.paraphrase) for pair in pairs] == [("a", GOOD), ("a", OTHER)]
    assert [(row.input, row.split) for row in references] == [("b", "test"), ("c", "ood")]
    assert [row.paraphrases for row in references] == [[GOOD, OTHER], [OTHER, GOOD]]
    assert metrics == {
        "asked": 3,
        "unparsed": 0,
        "parsed": 6,
        "kept_pairs": 2,
        "references": 2,
        "reference_paraphrases": 4,
        "inputs_without_any": 0,
        "no_reference": 0,
        "dropped": {},
    }


def test_every_paraphrase_is_kept_or_counted(run):
    metrics = run(
        [
            reply("a", f"1. {GOOD}\n2. {LITERAL}\n3. {OTHER}\n4. My bus had places to be today."),
            reply("b", f"1. {GOOD}\n2. {GOOD.upper()}\n3. Gone by now, my", reason="length"),
            reply("c", "I'm sorry, but I can't help with that.\nTry a walk in the park.", "val"),
            reply("d", "", "test"),
            reply("e", f"1. {GOOD}\n2. Bus gone.", "test"),
        ]
    )
    assert metrics["dropped"] == {
        "copy": 1,
        "duplicate": 1,
        "over_per_input": 1,
        "refusal": 2,
        "too_short": 1,
        "truncated": 1,
    }
    kept = metrics["kept_pairs"] + metrics["reference_paraphrases"]
    assert metrics["parsed"] == kept + sum(metrics["dropped"].values())
    assert metrics["unparsed"] == 1
    assert metrics["inputs_without_any"] == 2
    assert metrics["no_reference"] == 2


def test_the_first_example_of_each_reason_is_printed(run, capsys):
    run([reply("a", f"1. {GOOD}\n2. Bus gone.\n3. No bus.")])
    printed = capsys.readouterr().out
    assert "too_short 2" in printed
    assert "first too_short: 'Bus gone.'" in printed


def test_several_replies_for_one_input_are_taken_together(run):
    run([reply("a", GOOD), reply("a", f"1. {GOOD}\n2. {OTHER}")])
    assert [row.paraphrase for row in read_rows("out/pairs.jsonl", TrainingPair)] == [GOOD, OTHER]


def test_echoed_worked_examples_are_dropped(run):
    echo = "Thanks to the oven, dinner was well past tense."
    exemplar = Exemplar(id="x", literal="I burnt dinner.", paraphrases=[{"text": echo}])
    metrics = run([reply("a", f"1. {GOOD}\n2. {echo.lower()}")], [exemplar])
    assert metrics["dropped"] == {"prompt_echo": 1}


def test_too_many_lost_inputs_stop_the_stage_with_the_remedy(run, tmp_path):
    refusal = "I'm sorry, but I cannot help with that."
    replies = [reply("a", GOOD), reply("b", refusal), reply("c", refusal)]
    with pytest.raises(DataError, match=r"2 of 3 inputs .*66.7%, limit 50.0%.*refusal 2") as error:
        run(replies)
    assert "input b" in str(error.value)
    assert "Look at prompts/teacher.txt" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_pair_at_all_is_an_error(run):
    with pytest.raises(DataError, match="no training pair is left"):
        run([reply("a", GOOD, "test")], max_drop_share=1.0)


def test_unknown_key_is_named(run):
    with pytest.raises(ParamsError, match=r"imitation\.per_inputs.*Did you mean 'per_input'"):
        run([reply("a", GOOD)], per_inputs=3)


REASONS = [
    (GOOD, None),
    ("I missed my bus this morning!", "copy"),
    ("i MISSED my bus, this morning", "copy"),
    ("As an AI language model, I do not take the bus.", "refusal"),
    ("I cannot create humorous content about this sentence.", "refusal"),
    ("I\u2019m sorry, I can\u2019t help you with that request.", "refusal"),
    ("It is important to remember that lateness hurts people.", "safety_warning"),
    ("Please note that these are meant in jest only.", "safety_warning"),
    ("Sentence: my bus went away without me.", "prompt_echo"),
    ("Here is a numbered list for you and the bus.", "prompt_echo"),
    ("Mi autob\u00fas se march\u00f3 sin m\u00ed esta ma\u00f1ana", "wrong_language"),
    ("Mein Bus ist heute ohne mich gefahren", "wrong_language"),
    ("\u6211\u4eca\u5929\u65e9\u4e0a\u9519\u8fc7\u4e86\u516c\u4ea4\u8f66", "wrong_language"),
    ("The bus went \u771f\u7684\u592a\u7cdf\u7cd5\u4e86 without me", "wrong_language"),
    ("C'est la vie, said my bus, and left.", None),
    ("Bus gone, me here", None),
    ("No bus today", "too_short"),
    ("bus " * 21, "too_long"),
]


@pytest.mark.parametrize(("text", "expected"), REASONS)
def test_reason(text, expected):
    assert drop_reason(text, LITERAL, set(), Params(**SECTION)) == expected


def test_a_repetition_within_an_input_is_a_duplicate():
    seen = {"my bus and i have decided to see other people"}
    assert drop_reason(GOOD.upper() + "!!", LITERAL, seen, Params(**SECTION)) == "duplicate"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry I missed your call, my phone was in the fridge.",
        "I can't help laughing when my boss says synergy.",
        "I won't make it to the party, the sofa has custody of me.",
        "I cannot write to my landlord without weeping.",
        "My doctor told me to rest, which I do professionally.",
        "Remember the bus? It does not remember me.",
    ],
)
def test_ordinary_sentences_are_neither_refusals_nor_warnings(text):
    assert not refuses(text, "I fell.")
    assert not warns(text, "I fell.")


def test_what_the_literal_says_is_no_refusal():
    literal = "The chatbot said that as an AI it has no opinion on my tie."
    assert not refuses("As an AI, said the chatbot, it would rather not look at my tie.", literal)
