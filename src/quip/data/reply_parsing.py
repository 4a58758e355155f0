"""Reply parser: a teacher's raw reply -> paraphrases. Every function is pure, and any text gives a
list without an error.

The prompt asks for a numbered list. Teachers also write other marks, bold print, quotation marks,
everything on one line, JSON, a greeting before and a note after. The parser leaves out only what is
certainly not a paraphrase; other modules judge the paraphrases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from quip.core.text import fold, tidy

KINDS = (
    r"(?:(?:humorous|funny|creative)\s+)?(?:paraphrase|version|rewrite|rewording|variation|"
    r"alternative|option|answer|response|funny|joke)"
)
DEVICES = (
    r"(?:exaggeration|hyperbole|comparison|simile|metaphor|understatement|irony|ironic|sarcasm|"
    r"sarcastic|word\s?play|pun|bathos|absurdity|humorous|funny)"
)
DASH = r"\-\u2013\u2014"  # for use inside [ ]

NUMBERED = re.compile(
    rf"""[\s>\#]*(?:[-*\u2022]\s+)?(?P<bold>\*\*|__)?\s*
    (?:
        {KINDS}\s*(?:no\.?|number|\#)?\s*(?P<named>\d{{1,2}})\s*(?:[.):{DASH}]|(?=\*\*|$))
      | \(\s*(?P<round>\d{{1,2}})\s*\)
      | \[\s*(?P<square>\d{{1,2}})\s*\]
      | (?P<plain>\d{{1,2}})(?:\s?[.):](?!\d)|\s+[{DASH}]\s)
      | (?P<keycap>\d)\ufe0f?\u20e3
      | (?P<circled>[\u2460-\u2468])
    )
    \s*(?(bold)(?:\*\*|__)?)\s*:?\s*(?P<rest>.*)""",
    re.VERBOSE | re.IGNORECASE,
)
BULLET = re.compile(
    rf"\s*(?:[*+\u2022\u2023\u2043\u25aa\u25cf\u25b8\u25ba\u27a4\u25e6\u00b7{DASH}])\s+(?P<rest>.*)"
)
FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
GREETING = re.compile(
    r"\W*(?:sure(?: thing)?|certainly|of course|absolutely|ok(?:ay)?|alright|great|no problem)\b"
    r"[!,.\s]*",
    re.IGNORECASE,
)
ANNOUNCEMENT = re.compile(
    r"(?:here(?:'s| is| are)|below (?:is|are)|these are|the following)\b(?:"
    r"[^:\n]{0,80}\b(?:paraphras|rephras|rewrit|version|option|humorous|funny|creative)[^:\n]{0,80}:"
    r"|[^:\n]{0,80}\bparaphras[^:\n]{0,80}$|\s+(?:one|three|some)(?: for you)?\s*:)"
    r"|here you go\b[:!.]*",
    re.IGNORECASE,
)
HEADING = re.compile(rf"\W*{KINDS}s?\W*", re.IGNORECASE)
NOTE = re.compile(
    r"\W*(?:note|explanation|disclaimer|device|reasoning|p\.?s\.?|nb|n\.b\.)\s*(?:\*\*)?\s*:"
    r"|\W*(?:i hope (?:this|these|that|you)|hope (?:this|these) help|let me know|feel free to"
    r"|please (?:note|remember|let me know)|these paraphrases|(?:all|each) of these|would you like"
    r"|if you(?:'d like| need| want) (?:more|another|any))\b",
    re.IGNORECASE,
)
OTHER_TURN = re.compile(
    r"\W*(?:literal|sentence|input|original|text|example|task|user|human|system|assistant)"
    r"(?:\s+(?:sentence|text|\d+))?\s*(?:\*\*)?\s*:",
    re.IGNORECASE,
)
LABEL = re.compile(
    rf"\*\*[^*\n]{{1,40}}(?::\s*\*\*|\*\*\s*:)\s*|[(\[]\s*{DEVICES}\s*[)\]]\s*[:{DASH}]?\s*"
    rf"|{DEVICES}\s*:\s*|{KINDS}\s*:\s*|(?:output|funny)\s*:\s*|[*{DASH}:\u2022]\s+",
    re.IGNORECASE,
)
TAIL = re.compile(
    rf"\s*[(\[]\s*(?:note|explanation|disclaimer|nb)\b.*\Z"
    rf"|\s*[(\[]\s*(?:{DEVICES}|\d+ words)\s*[)\]]\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
QUOTES = str.maketrans("\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb", '\'\'\'"""""')
WHOLE_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?', re.DOTALL)
TEXT_KEYS = ("paraphrase", "text", "humorous", "sentence", "output", "content")


def parse_reply(text: str, finish_reason: str) -> list[str]:
    """The paraphrases of one reply, in its order, each on one line.

    `finish_reason` "length" means that the reply was cut off. If it ends inside a paraphrase, that
    paraphrase is left out.
    """
    body = THINKING.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    body = "\n".join(map(tidy, FENCE.sub("", body).split("\n")))
    found = from_json(body)
    if found is None:
        found = from_lines(body, cut=finish_reason == "length")
    return [item for item in map(clean, found) if fold(item)]


def from_json(body: str) -> list[str] | None:
    """The strings of a JSON list or object, complete or cut off; None for other text."""
    start = re.search(r'^\s*[\[{](?=\s*["\[{])', body, re.MULTILINE)
    if not start:
        return None
    document = body[start.start() :].strip()
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(document)
    except (ValueError, RecursionError):
        value = [
            decode_string(match[1]) for match in WHOLE_STRING.finditer(document) if not match[2]
        ]
    return list(strings_in(value)) or None


def decode_string(string: str) -> str:
    """The text of a JSON string's body; the body unchanged when it is not valid."""
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string


def strings_in(value: Any, depth: int = 3) -> Iterator[str]:
    """The texts of a list, of a list of objects, or of an object with a list or numbered keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from strings_in(item, depth - 1)
    elif isinstance(value, dict) and depth:
        named = [value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)][:1]
        lists = [item for item in value.values() if isinstance(item, list)]
        for item in named or lists or value.values():
            yield from strings_in(item, depth - 1)


def from_lines(body: str, cut: bool) -> list[str]:
    """The items of a numbered list, else of a bulleted one, else one item for each line."""
    lines = split_inline_list(body.translate(QUOTES)).split("\n")
    numbers = [number for number in map(number_of, lines) if number is not None]
    if numbers and numbers[0] in (1, 2):
        return marked_items(lines, NUMBERED, cut)
    if sum(1 for line in lines if BULLET.match(line)) > 1:
        return marked_items(lines, BULLET, cut)
    return unmarked_items(lines, cut)


def number_of(line: str) -> int | None:
    """The number that a line of a numbered list starts with, in any style; None for other lines."""
    match = NUMBERED.match(line)
    if not match:
        return None
    if match["circled"]:
        return ord(match["circled"]) - 0x245F
    marks = ("named", "round", "square", "plain", "keycap")
    return next(int(match[mark]) for mark in marks if match[mark])


def split_inline_list(body: str) -> str:
    """Break a list written on one line into lines; 1 and 2 must be in the same style."""
    if any(number_of(line) == 2 for line in body.split("\n")):
        return body
    if re.match(r"\s*\u2022", body):
        return re.sub(r"\s\u2022\s", "\n\u2022 ", body)
    first = re.search(r"(?:^|(?<=\s))(\*\*)?(\(?)1([.):])(?=\D)", body)
    if not first:
        return body
    starts, number = [first.start()], 2
    opening, ending = re.escape(first[2]), re.escape(first[3])
    while match := re.compile(rf"(?<=\s)(?:\*\*)?{opening}{number}{ending}(?=\D)").search(
        body, starts[-1] + 1
    ):
        starts.append(match.start())
        number += 1
    if len(starts) == 1 or (len(starts) == 2 and body[: starts[1]].rstrip()[-1].isalnum()):
        return body  # such as "1. I called at 2. Nobody came."
    ends = [*starts[1:], len(body)]
    items = [body[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return "\n".join([body[: starts[0]], *items])


def marked_items(lines: list[str], mark: re.Pattern[str], cut: bool) -> list[str]:
    """The items of a list whose lines start with `mark`.

    A line without a mark continues the item above it; after an empty line it is a closing remark. A
    list that starts again at 1 answers another input and ends the items.
    """
    items: list[str] = []
    lead: list[str] = []
    last, inside, ends_inside = 0, False, False
    for line in lines:
        if not line.strip():
            inside = inside and not items[-1].strip()
            continue
        match = mark.match(line)
        number = number_of(line) if mark is NUMBERED else None
        if (number == 1 and last > 1) or (items and OTHER_TURN.match(line)):
            ends_inside = False
            break
        if match and not NOTE.match(match["rest"]):
            items.append(match["rest"])
            inside, last = True, number or 0
        elif inside and not match and continues_item(line, items[-1]):
            items[-1] += f" {line}"
        else:
            inside = False
        if not items:
            lead.append(line)
        ends_inside = inside
    if cut and ends_inside:
        items.pop()
    return [*unnumbered_first_item(lines, lead), *items]


def continues_item(line: str, item: str) -> bool:
    """Whether a line without a mark continues the item above it, and is not a remark on it."""
    return not NOTE.match(line) and (not item.strip() or not BULLET.match(line))


def unnumbered_first_item(lines: list[str], lead: list[str]) -> list[str]:
    """The text before a list that starts at 2: its first item, when the prompt ends with "1."."""
    first = next((number for number in map(number_of, lines) if number is not None), 1)
    return unmarked_items(lead, cut=False)[:1] if first == 2 else []


def unmarked_items(lines: list[str], cut: bool) -> list[str]:
    """One paraphrase for each line, without greetings, headings, notes and other turns."""
    full = [line for line in lines if line.strip()]
    if cut:
        full = full[:-1]
    kept: list[str] = []
    for line in full:
        if kept and OTHER_TURN.match(line):
            break
        text = strip_announcement(line)
        is_label = line.rstrip(" *").endswith(":") or HEADING.fullmatch(line)
        if text and not is_label and not NOTE.match(line) and not OTHER_TURN.match(line):
            kept.append(text)
    return kept


def strip_announcement(line: str) -> str:
    """`line` without "Sure! Here is a humorous paraphrase:"; a bare greeting becomes ""."""
    greeting = GREETING.match(line)
    rest = line[greeting.end() :] if greeting else line.lstrip(" *#")
    announced = ANNOUNCEMENT.match(rest)
    if announced:
        return rest[announced.end() :]
    return rest if greeting and not rest.strip() else line


def clean(item: str) -> str:
    """One paraphrase as plain text: without marks, labels, notes, bold print and outer quotes."""
    text = tidy(item.translate(QUOTES))
    while label := LABEL.match(text):
        text = text[label.end() :]
    text = tidy(TAIL.sub("", text).replace("**", "").replace("__", ""))
    return strip_quotes(text.rstrip(",;").strip())


def strip_quotes(text: str) -> str:
    """Remove quotation marks around the whole text, and a single one without its partner."""
    text = re.sub(r'^"([^"]+)"([.!?])$', r'"\1\2"', text)
    for quote in ('"', "'", "`", "*", '"'):
        if len(text) > 2 and text[0] == text[-1] == quote and encloses(text[1:-1], quote):
            text = text[1:-1].strip()
    return text.strip('"').strip() if text.count('"') == 1 else text


def encloses(inner: str, quote: str) -> bool:
    """Whether the outer marks enclose `inner`: no mark inside, or the first opens a quotation."""
    at = inner.find(quote)
    if quote == "'":
        return not re.search(r"\B'|'\B", inner)
    return at < 0 or (at > 0 and inner[at - 1] == " " and inner[at + 1 : at + 2] != " ")
