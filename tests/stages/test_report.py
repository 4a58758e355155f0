"""The report stage on a small made-up project, whole and with parts missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import evaluated_project
from evaluated_project import evaluate_arguments
from quip.core.jsonl import read_rows, write_rows
from quip.core.records import Response
from quip.reporting import figures, glossary
from quip.runtime.errors import DataError, ParamsError
from quip.stages import evaluate, report

VOID = {"meta", "link", "br", "path", "use", "rect"}


class Reader(HTMLParser):
    """Collects what a browser would load, and the elements that accessibility needs."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.ids, self.open = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.loads += [found[key] for key in ("src", "href", "data", "srcset") if key in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def arguments(data):
    names = ("metrics", "curves", "verdicts", "responses", "audit", "imitation", "roles", "runs")
    folders = [part for name in names for part in (f"--{name}", f"{data}/{name}")]
    return [*folders, "--preferences", f"{data}/preferences.jsonl", "--out", f"{data}/report"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return project(tmp_path)


def project(folder, **settings):
    found = evaluated_project.write(folder, **settings)
    evaluate.main(evaluate_arguments(found))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a project in which everything was evaluated_project."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return reported(project(folder))


def reported(data):
    report.main(arguments(data))
    return (data / "report/report.html").read_text(encoding="utf-8")


def parsed(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_page_loads_nothing(whole):
    page = whole
    loads = parsed(page).loads
    assert loads
    assert all(part.startswith(("#", "data:")) for part in loads)
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_page_is_well_formed_with_unique_ids_and_every_reference_kept(whole):
    page = whole
    reader = parsed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    referred = set(re.findall(r'(?:url\(|href=")#([\w-]+)', page))
    assert referred
    assert referred <= set(reader.ids)


def test_page_is_accessible(whole):
    tags = parsed(whole).tags
    drawings = [found for tag, found in tags if tag == "svg"]
    assert len(drawings) >= 12
    assert all(found["role"] == "img" and len(found["aria-label"]) > 20 for found in drawings)
    tables = sum(tag == "table" for tag, _ in tags)
    assert sum(found.get("scope") == "col" for tag, found in tags if tag == "th") > tables


def test_all_arms_controls_and_the_claim_are_on_the_page(whole):
    page = whole
    for part in ("dpo vs sft", "best_of_n", "head to head on test", "teacher", "copy"):
        assert part in page
    assert "Teacher, critic and judge are one model" in page


def test_every_audited_critic_is_in_the_form_of_table_1(whole):
    part = whole[whole.index('<h2 id="critic">') : whole.index('<h2 id="training">')]
    for column in ("agreement", "Ag-H", "Ag-C", "PB", "LB"):
        assert f'class="num">{column} [95 %]</th>' in part
    row = re.search(r'<tr><th scope="row">cloze:humor@embedded(.*?)</tr>', part, re.DOTALL)
    assert "reaches chance" in row[1]
    assert '0.31 <span class="ends">[0.20, 0.40]' in row[1]
    critic = re.search(r'<tr><th scope="row">the critic(.*?)</tr>', part, re.DOTALL)
    assert '0.71 <span class="ends">[0.60, 0.80]' in critic[1]
    assert "reaches chance" not in critic[1]


def test_a_second_report_is_byte_identical(data):
    reported(data)
    first = {path.name: path.read_bytes() for path in (data / "report").iterdir()}
    shutil.rmtree(data / "report")
    reported(data)
    assert {path.name: path.read_bytes() for path in (data / "report").iterdir()} == first
    assert "scores-arms.svg" in first


def test_samples_follow_the_rule_and_the_count(data):
    params = data.parent / "params.yaml"
    params.write_text(params.read_text().replace("samples: 20", "samples: 3"))
    page = reported(data)
    assert page.count('<li class="sample">') == 3


def test_every_figure_and_every_column_of_results_leads_to_its_definition(whole):
    reader = parsed(whole)
    links = [found for tag, found in reader.tags if tag == "a" and found.get("class") == "term"]
    assert len(links) > 40
    assert all(found["href"].removeprefix("#") in reader.ids for found in links)
    assert whole.count("<figure>") == whole.count("What is this?")
    terms = [entry["id"] for block in glossary.read_sections() for entry in block["terms"]]
    assert {f"def-{name}" for name in terms} <= set(reader.ids)


def test_the_verdict_comes_first_and_the_rule_below_its_table(whole):
    head = whole[: whole.index("Read these numbers with care")]
    assert '<ul class="verdicts">' in head
    gains = whole[whole.index('<h2 id="gains">') : whole.index('<h2 id="results">')]
    assert "excludes no difference, head to head (one half) and against the teacher (zero)" in gains
    assert "With 12 inputs you can see differences above" in gains


def test_a_judge_that_shares_its_model_with_a_role_is_marked_everywhere(whole, data):
    assert whole.count(">= teacher, critic</a>") >= 10
    judges = [{"endpoint": "embedded", "model": "another"}]
    (data / "roles/judges.json").write_text(json.dumps(judges))
    page = reported(data)
    assert 'class="kin"' not in page
    assert "Teacher, critic and judge are one model" not in page


def test_alarms_mark_the_arm_and_the_value(data):
    rows = read_rows(data / "responses/dpo.jsonl", Response)
    copies = [row.model_copy(update={"text": row.literal}) for row in rows]
    write_rows(data / "responses/dpo.jsonl", copies)
    evaluate.main(evaluate_arguments(data))
    page = reported(data)
    assert '<a class="chip past" href="#def-alarm">copies</a>' in page
    assert 'title="past its limit of 0.20">100 %</span>' in page
    said = "100 % of the texts of dpo are copies of the input (limit 20 %)."
    assert said in page.replace("\u00a0", " ")


def test_the_safety_screen_is_counted_by_author_and_category(data):
    assert "Missing: the texts were not screened" in reported(data)
    safety = {
        "texts": {"sft": 30, "teacher": 90}, "flagged": {"sft": {"words": 2}, "teacher": {}},
        "means": {"violence": "a threat"}, "own_words": 3, "endpoint": "guard", "unread": 1,
    }  # fmt: skip
    (data / "metrics/safety.json").write_text(json.dumps(safety))
    page = reported(data)
    section = page[page.index('<h2 id="safety">') : page.index('<h2 id="critic">')]
    for part in ("120 texts", "3 words of your own", "guard", "1 answers", "a threat"):
        assert part in section
    assert '<td class="num">0</td><td class="num">2</td>' in section


def test_leakage_and_order_of_judges_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = evaluated_project.write(tmp_path, judges=("small", "large"))
    roles = [{"endpoint": "small", "model": "q"}, {"endpoint": "large", "model": "l"}]
    for name, content in {"teacher": roles[0], "critic": roles[0], "judges": roles}.items():
        (data / f"roles/{name}.json").write_text(json.dumps(content))
    evaluate.main(evaluate_arguments(data))
    page = reported(data)
    section = page[page.index('<h2 id="judges">') : page.index('<h2 id="controls">')]
    assert section.count('<th scope="row">critic</th>') == 2
    assert "No judge here is unrelated" not in section
    assert "large and small" in section
    assert "of 5" in section


def test_results_of_an_older_version_are_still_shown(data):
    """wtr.json without the blocks that came later."""
    wtr = evaluated_project.read_json(data / "metrics/wtr.json")
    new = ("differences", "ratings", "leakage", "length_by_round", "alarms")
    for name in new:
        del wtr[name]
    for block in wtr["texts"].values():
        for cell in block.values():
            del cell["self_similarity"]
    del wtr["settings"]["alarms"], wtr["settings"]["base"]
    (data / "metrics/wtr.json").write_text(json.dumps(wtr))
    assert parsed(reported(data)).open == []


def test_texts_are_escaped(whole):
    assert "I cannot &lt;b&gt;joke&lt;/b&gt; about this &amp; that." in whole


def test_settings_are_shown_without_endpoints(whole):
    page = whole
    assert "tie_margin" in page
    assert "127.0.0.1" not in page


@pytest.mark.parametrize(
    "lost",
    [
        ["curves", "audit", "roles", "runs", "preferences.jsonl", "metrics/critic.json"],
        ["curves/dpo.csv", "verdicts/dpo.jsonl", "responses/sft.jsonl"],
        ["responses", "verdicts", "metrics/prepare.json", "metrics/teacher.json"],
    ],
)
def test_missing_parts_are_named_without_a_crash(data, lost):
    for name in lost:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = reported(data)
    assert parsed(page).open == []
    missing = page[page.index("Not measured in this run") : page.index("<nav")]
    named = [name for name in lost if name not in ("metrics/prepare.json", "metrics/teacher.json")]
    assert all(name in missing for name in named)


def test_an_arm_that_was_not_trained_leaves_an_empty_curve(data):
    (data / "curves/dpo.csv").write_text("step\n")
    assert "Missing: the curve of dpo." in reported(data)


def test_one_arm_and_several_judges_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = reported(project(tmp_path, arms=("sft",), judges=("small", "large")))
    assert "there are no two arms to compare" in page
    assert "sft · test · large" in page


def test_missing_results_are_refused(data):
    (data / "metrics/wtr.json").unlink()
    with pytest.raises(DataError, match=r"wtr\.json: no such file\. Run `dvc repro evaluate`"):
        reported(data)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("curves/dpo.csv", "step,loss\n5,abc\n", r"dpo\.csv, line 2: 'abc' is not a number"),
        ("metrics/prepare.json", "{", r"prepare\.json, line 1, column 2: not JSON"),
        ("audit/critiques.jsonl", "{}\n", r"critiques\.jsonl, line 1: field 'input'"),
    ],
)
def test_malformed_files_are_refused_by_line(data, name, content, says):
    (data / name).write_text(content)
    with pytest.raises(DataError, match=says):
        reported(data)


def test_non_finite_points_of_a_curve_are_left_out(data):
    (data / "curves/dpo.csv").write_text("step,loss\n5,nan\n10,\n15,0.5\n20,0.4\n")
    assert "loss from 0.5 to 0.4" in reported(data)


def test_params_are_checked(data):
    params = data.parent / "params.yaml"
    params.write_text(params.read_text().replace("samples: 20", "samples: 20, sampels: 20"))
    with pytest.raises(ParamsError, match=r"unknown key 'report\.sampels'.*samples"):
        reported(data)


def test_report_imports_no_torch():
    code = "import sys, quip.stages.report; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_scatter_of_many_verdicts_shows_a_labelled_sample(data, monkeypatch):
    monkeypatch.setattr(figures, "MOST_POINTS", 5)
    page = reported(data)
    assert "One verdict in" in page
    assert "Every verdict on" not in page
