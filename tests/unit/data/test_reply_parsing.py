"""Reply parser: teacher replies in all their real forms, and the paraphrases in them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quip.data.reply_parsing import parse_reply

A = "My bus left without me, as buses do."
B = "The bus and I have agreed to see other people."
C = "I ran for the bus; it ran faster."

REPLIES = {
    "dots": (f"1. {A}\n2. {B}\n3. {C}", [A, B, C]),
    "brackets": (f"1) {A}\n2) {B}\n3) {C}", [A, B, C]),
    "round brackets": (f"(1) {A}\n(2) {B}", [A, B]),
    "square brackets": (f"[1] {A}\n[2] {B}", [A, B]),
    "colons": (f"1: {A}\n2: {B}", [A, B]),
    "dashes after numbers": (f"1 - {A}\n2 - {B}", [A, B]),
    "no space": (f"1.{A}\n2.{B}", [A, B]),
    "windows line ends": (f"1. {A}\r\n2. {B}\r\n", [A, B]),
    "hyphens": (f"- {A}\n- {B}", [A, B]),
    "stars": (f"* {A}\n* {B}", [A, B]),
    "unicode bullets": (f"\u2022 {A}\n\u2022 {B}", [A, B]),
    "bullets on one line": (f"\u2022 {A} \u2022 {B} \u2022 {C}", [A, B, C]),
    "circled numbers": (f"\u2460 {A}\n\u2461 {B}", [A, B]),
    "keycaps": (f"1\ufe0f\u20e3 {A}\n2\ufe0f\u20e3 {B}", [A, B]),
    "bold numbers": (f"**1.** {A}\n**2.** {B}", [A, B]),
    "all bold": (f"**1. {A}**\n**2. {B}**", [A, B]),
    "bold labels": (f"1. **Irony:** {A}\n2. **Bathos**: {B}", [A, B]),
    "named": (f"Paraphrase 1: {A}\nParaphrase 2: {B}", [A, B]),
    "named, bold": (f"**Paraphrase 1:** {A}\n\n**Paraphrase 2:** {B}", [A, B]),
    "named above": (f"**Version 1**\n{A}\n\n**Version 2**\n{B}", [A, B]),
    "option number": (f"Option #1: {A}\nOption #2: {B}", [A, B]),
    "devices": (f"1. (irony) {A}\n2. Understatement: {B}\n3. {C} (wordplay)", [A, B, C]),
    "quotes": (f'1. "{A}"\n2. "{B}"', [A, B]),
    "curly quotes": (f"1. \u201c{A}\u201d\n2. \u201c{B}\u201d", [A, B]),
    "single quotes": (f"1. '{A}'", [A]),
    "stop outside the quotes": ('1. "I missed it".', ["I missed it."]),
    "quote never closed": (f'1. "{A}\n2. {B}', [A, B]),
    "inner quotes stay": ('1. "No," I said, "not the bus"', ['"No," I said, "not the bus"']),
    "wrapped inner quotes": ('1. "I said "no" to the bus"', ['I said "no" to the bus']),
    "curly apostrophe": ("1. It\u2019s gone.", ["It's gone."]),
    "preamble": (f"Here are three humorous paraphrases:\n\n1. {A}\n2. {B}\n3. {C}", [A, B, C]),
    "greeting": (f"Sure!\n1. {A}", [A]),
    "greeting and one": (f"Sure! Here's a funny version: {A}", [A]),
    "greeting alone": ("Sure!", []),
    "preamble without colon": (f"Here are the paraphrases you asked for.\n{A}", [A]),
    "note at the end": (f"1. {A}\n2. {B}\n\n(Note: these are jokes.)", [A, B]),
    "note without a gap": (f"1. {A}\nNote: it plays on words.\n2. {B}", [A, B]),
    "note as an item": (f"1. {A}\n2. Note: all of this is in jest.", [A]),
    "note in the line": (f"1. {A} (Note: this (really) is a pun.)\n2. {B}", [A, B]),
    "closing remark": (f"1. {A}\n2. {B}\n\nI hope these make you smile!", [A, B]),
    "remark after an empty line": (f"1. {A}\n\nThe bus company sends its love.", [A]),
    "explained": (f"1. {A}\n   - Explanation: irony\n2. {B}\n   * it is a pun", [A, B]),
    "one line": (f"1. {A} 2. {B} 3. {C}", [A, B, C]),
    "one line with preamble": (f"Sure! 1) {A} 2) {B}", [A, B]),
    "one line, bold": (f"**1.** {A} **2.** {B}", [A, B]),
    "one line, brackets": (f"(1) {A} (2) {B}", [A, B]),
    "a time is no mark": ("1. I called at 2. Nobody came.", ["I called at 2. Nobody came."]),
    "a clock is no mark": ("7:30 came. So did the bus.", ["7:30 came. So did the bus."]),
    "a number is no mark": ("3 buses passed me.", ["3 buses passed me."]),
    "unnumbered": (A, [A]),
    "unnumbered lines": (f"{A}\n{B}", [A, B]),
    "greeting is the joke": ("Great, the bus is gone.", ["Great, the bus is gone."]),
    "here is no announcement": (
        "Here is where my bus was, in happier times.",
        ["Here is where my bus was, in happier times."],
    ),
    "labelled": (f"Humorous paraphrase: {A}", [A]),
    "echo of the prompt": (f"Literal: I missed my bus.\nFunny: {A}", [A]),
    "next input invented": (f"1. {A}\n2. {B}\n\nLiteral: I fell.\n1. {C}", [A, B]),
    "list starts again": (f"1. {A}\n2. {B}\n1. {C}", [A, B]),
    "all ones": (f"1. {A}\n1. {B}\n1. {C}", [A, B, C]),
    "first mark was in the prompt": (f"{A}\n2. {B}\n3. {C}", [A, B, C]),
    "two lines": (
        "1. My bus left\n   without me.\n2. It went.",
        ["My bus left without me.", "It went."],
    ),
    "text below its number": (f"1.\n{A}\n\n2.\n\n{B}", [A, B]),
    "JSON": (f'["{A}", "{B}"]', [A, B]),
    "JSON objects": (f'[{{"paraphrase": "{A}", "device": "irony"}}]', [A]),
    "JSON object of a list": (f'{{"paraphrases": ["{A}", "{B}"]}}', [A, B]),
    "JSON numbered": (f'{{"1": "{A}", "2": "{B}"}}', [A, B]),
    "JSON in a fence": (f'Sure:\n```json\n["{A}", "{B}"]\n```\nEnjoy!', [A, B]),
    "JSON with a comma too many": (f'["{A}", "{B}",]', [A, B]),
    "JSON nested without end": ("[" * 100_000, []),
    "fence": (f"```\n1. {A}\n2. {B}\n```", [A, B]),
    "heading": (f"## Humorous paraphrases\n1. {A}", [A]),
    "thoughts": (f"<think>1. hm\n2. no</think>\n1. {A}\n2. {B}", [A, B]),
    "emoji": (
        "1. The bus left \U0001f68c\U0001f4a8\n2. \U0001f602",
        ["The bus left \U0001f68c\U0001f4a8"],
    ),
    "empty item": (f"1. {A}\n2.", [A]),
    "control characters": ("1. My\x00 bus\u200b left.\ufeff", ["My bus left."]),
    "empty": ("", []),
    "blank": (" \n\n ", []),
    "refusal is left to others": ("I'm sorry, but I can't.", ["I'm sorry, but I can't."]),
}

CUT = {
    "last item": (f"1. {A}\n2. {B}\n3. I ran for", [A, B]),
    "only item": ("1. I ran for", []),
    "without marks": (f"{A}\nI ran for", [A]),
    "on one line": (f"1. {A} 2. {B} 3. I ran", [A, B]),
    "in a note": (f"1. {A}\n2. {B}\n\n(Note: the bus", [A, B]),
    "in JSON": (f'["{A}", "{B}", "I ran for', [A, B]),
    "in JSON objects": (f'{{"paraphrases": ["{A}", "I ran', [A]),
    "in thoughts": ("<think>1. hm\n2. what if", []),
    "in the next input": (f"1. {A}\n2. {B}\nLiteral: I f", [A, B]),
}

FORMS = [
    "{n}. {text}\n",
    "{n}) {text}\n",
    "({n}) {text}\n",
    "{n}: {text}\n\n",
    "**{n}.** {text}\n",
    '{n}. "{text}"\n',
    "Paraphrase {n}: {text}\n",
    "- {text}\n",
    "\u2022 {text}\n",
    "{text}\n",
]
PLAIN = st.from_regex(r"\A[A-Z][a-z]{2,8}( [a-z]{2,8}){2,9}[.!]\Z")
ANY = st.text(st.characters(codec=None))


def test_the_tables_are_large():
    assert len(REPLIES) + len(CUT) >= 30


@pytest.mark.parametrize("name", REPLIES)
def test_finished_reply(name):
    text, expected = REPLIES[name]
    assert parse_reply(text, "stop") == expected


@pytest.mark.parametrize("name", CUT)
def test_reply_that_was_cut_off(name):
    text, expected = CUT[name]
    assert parse_reply(text, "length") == expected


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(texts=st.lists(PLAIN, min_size=2, max_size=5))
def test_every_form_gives_back_what_was_written(form, texts):
    reply = "".join(form.format(n=n, text=text) for n, text in enumerate(texts, start=1))
    assert parse_reply(reply, "stop") == texts
    assert parse_reply(reply, "length") == texts[:-1]


@given(text=ANY, reason=st.sampled_from(["stop", "length", ""]))
def test_any_text_gives_clean_lines_and_no_error(text, reason):
    for item in parse_reply(text, reason):
        assert item == " ".join(item.split())
        item.encode("utf-8")


@given(text=ANY)
def test_a_cut_reply_loses_its_last_item_at_most(text):
    whole = parse_reply(text, "stop")
    assert parse_reply(text, "length") in (whole, whole[:-1])


@given(parts=st.lists(st.sampled_from([
    "1.", "2)", "**", "- ", '"', "\n", "\n\n", "Note:", "(Note: ", "[", "{", "```", "<think>",
    "Literal:", "Paraphrase 1", "Sure!", "Here are three:", "\u2022 ", "bus", " ", "*", "'",
])))  # fmt: skip
def test_any_mix_of_marks_gives_a_list(parts):
    for reason in ("stop", "length"):
        assert isinstance(parse_reply("".join(parts), reason), list)
