import json
import re

import pytest

from blankfill.demo.corpus import generate, write_corpus
from blankfill.demo.corpus.story import draw_story, held_out
from blankfill.demo.corpus.world import DAYS, build_world
from blankfill.rng import generator


@pytest.fixture(scope="module")
def corpus():
    return generate(1, num_train=1500, num_valid=120)


def test_the_same_seed_writes_the_same_text_and_another_seed_another():
    first, again, other = (generate(s, num_train=50, num_valid=10) for s in (1, 1, 2))
    assert first == again
    assert first.train != other.train


def test_no_held_out_document_is_trained_on(corpus):
    train = {document.text for document in corpus.train}
    for documents in corpus.valid.values():
        assert not train & {document.text for document in documents}
        assert len({document.text for document in documents}) == len(documents)


def test_held_out_combinations_of_people_never_occur_in_training(corpus):
    world = build_world(1)
    # In these kinds both people are named, so a combination can be recognised from outside.
    pairs = {
        (who.en, other.en)
        for who in world.people
        for other in world.people
        if who is not other and held_out("visit", who, other)
    }
    visit = re.compile(r"(.+?) came from .+? to see (.+?) in ")
    told = 0
    for document in corpus.train:
        for sentence in re.split(r"(?<=\.) ", document.text):
            if document.language == "en" and (found := visit.search(sentence)):
                guest = found[1].rpartition("day ")[2]
                assert (guest, found[2]) not in pairs
                told += 1
    assert told > 30


def test_half_of_the_held_out_documents_tell_held_out_combinations():
    world, draw = build_world(1), generator(0, "test")
    share = sum(draw_story(world, draw).held_out for _ in range(4000)) / 4000
    assert 0.05 < share < 0.15


def test_the_world_is_consistent():
    world = build_world(1)
    for person in world.people:
        spouse = world.people[person.spouse]
        assert world.people[spouse.spouse] is person
        assert spouse.female != person.female
        if person.mother >= 0:
            mother, father = world.people[person.mother], world.people[person.father]
            assert mother.female
            assert not father.female
            assert mother.spouse == father.index
            assert 13 <= person.born - mother.born <= 40
            assert world.people[person.spouse].mother != person.mother
    for (a, b), days in world.days_between.items():
        assert world.days_between[b, a] == days


def test_totals_and_days_add_up_in_what_is_told(corpus):
    names = [day for day, _ in DAYS]
    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    sums = roads = 0
    for document in corpus.train:
        if found := re.search(r"[Aa]t (\w+) coins each, the (\w+) came to (\d+)", document.text):
            assert numbers.index(found[1]) * numbers.index(found[2]) == int(found[3])
            sums += 1
        left = re.search(r"on (\w+day)\.? ?.*?takes (\w+) days?, so s?he arrived on (\w+day)",
                         document.text, re.IGNORECASE)  # fmt: skip
        if left and left[1] in names:
            arrival = (names.index(left[1]) + numbers.index(left[2])) % 7
            assert names[arrival] == left[3]
            roads += 1
    assert sums > 50
    assert roads > 50


def test_texts_are_clean(corpus):
    for document in corpus.train + corpus.valid["en"] + corpus.valid["zh"]:
        assert document.text == document.text.strip()
        assert "  " not in document.text
        if document.language == "zh":
            assert document.text.endswith("\u3002")
            assert not re.search("[,.;:a-zA-Z ]", document.text)
        else:
            assert document.text.endswith(".")
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", document.text)


def test_the_files_hold_the_corpus(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", seed=1)
    lines = (tmp_path / "corpus" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [d.text for d in corpus.train]
    assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == [
        "train.jsonl", "valid.en.jsonl", "valid.zh.jsonl",
    ]  # fmt: skip
