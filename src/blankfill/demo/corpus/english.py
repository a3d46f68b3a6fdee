"""Stories told in English."""

from __future__ import annotations

import numpy as np

from blankfill.demo.corpus.story import Story
from blankfill.demo.corpus.world import DAYS, SEASONS, Person

__all__ = ["tell"]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip


def tell(story: Story, rng: np.random.Generator) -> str:
    """Tell a story in four to six sentences, their words and partly their order by chance."""
    sentences = _TELLERS[story.kind](story, rng)
    middle = rng.permutation(len(sentences) - 2) + 1
    sentences = [sentences[0], *(sentences[i] for i in middle), sentences[-1]]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _pick(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _words(person: Person) -> dict[str, str]:
    """Give the words that agree with a person."""
    return (
        {"he": "she", "his": "her", "him": "her", "child": "daughter", "parent": "mother",
         "spouse": "wife"}
        if person.female
        else {"he": "he", "his": "his", "him": "him", "child": "son", "parent": "father",
              "spouse": "husband"}
    )  # fmt: skip


def _who(person: Person, rng: np.random.Generator) -> str:
    """Introduce a person, the decisive part before or after the name."""
    return _pick(
        rng,
        f"{person.en}, the {person.trade.en} of {person.town.en},",
        f"the {person.trade.en} of {person.town.en}, {person.en},",
        f"{person.en}, who is {_article(person.trade.en)} in {person.town.en},",
    )


def _town(person: Person, rng: np.random.Generator) -> str:
    town = person.town
    return _pick(
        rng,
        f"{town.en} is known for {town.feature_en}.",
        f"{town.feature_en}: that is {town.en}.",
        f"nobody leaves {town.en} without having seen {town.feature_en}.",
        f"a song about {town.en} begins with {town.feature_en}.",
        f"strangers come to {town.en} to see {town.feature_en}.",
        f"there is {town.feature_en} in {town.en}.",
        f"whoever speaks of {town.feature_en} means {town.en}.",
    )


def _season(story: Story, rng: np.random.Generator) -> str:
    name, _, scene, _ = SEASONS[story.season]
    return _pick(
        rng,
        f"it was {name}, and {scene}.",
        f"{scene}, for it was {name}.",
        f"{name} had come, and {scene}.",
        f"as always in {name}, {scene}.",
    )


def _work(person: Person, rng: np.random.Generator) -> str:
    w, good = _words(person), person.trade.good
    price = NUMBERS[good.price] + (" coin" if good.price == 1 else " coins")
    return _pick(
        rng,
        f"{person.en} makes {good.plural} and sells them for {price} each.",
        f"{_article(good.singular)} made by {person.en} costs {price}.",
        f"for {price} {w['he']} sells {_article(good.singular)}.",
        f"as {_article(person.trade.en)}, {w['he']} lives from making {good.plural}.",
    )


def _profile(story: Story, rng: np.random.Generator) -> list[str]:
    who, spouse = story.who, story.other
    w, s = _words(who), _words(spouse)
    born = f"{who.day} {MONTHS[who.month]} {who.born}"
    return [
        _pick(
            rng,
            f"{who.en} was born in {who.town.en} on {born}.",
            f"on {born}, {who.en} was born in {who.town.en}.",
        ),
        _town(who, rng),
        _work(who, rng),
        _pick(
            rng,
            f"{w['his']} {s['spouse']} is {spouse.en}, {_article(spouse.trade.en)}.",
            f"{w['he']} is married to {spouse.en}, who is {_article(spouse.trade.en)}.",
            f"{spouse.en} the {spouse.trade.en} is {w['his']} {s['spouse']}.",
        ),
        _pick(
            rng,
            f"{spouse.en} was born in {spouse.born}, and {who.en} in {who.born}.",
            f"every year, on {who.day} {MONTHS[who.month]}, {spouse.en} gives {w['him']} "
            "a present.",
        ),
    ]


def _purchase(story: Story, rng: np.random.Generator) -> list[str]:
    who, other, good = story.who, story.other, story.other.trade.good
    w, o = _words(who), _words(other)
    number, price = NUMBERS[story.number], NUMBERS[good.price]
    day = DAYS[story.day][0]
    return [
        _pick(
            rng,
            f"on {day} {_who(who, rng)} bought {number} {good.plural} from {other.en}.",
            f"{_who(who, rng)} went to {other.en} on {day} and bought {number} {good.plural}.",
            f"{number} {good.plural} were sold by {other.en} on {day}, to {who.en} of "
            f"{who.town.en}.",
        ),
        _pick(
            rng,
            f"{_article(good.singular)} costs {price} coins, so {who.en} paid {story.total} coins.",
            f"{who.en} paid {story.total} coins, because each of the {good.plural} costs {price}.",
            f"at {price} coins each, the {number} came to {story.total} coins.",
        ),
        _pick(
            rng,
            f"{other.en} is the {other.trade.en} of {other.town.en}.",
            f"in {other.town.en} everybody knows {other.en} the {other.trade.en}.",
            f"the {other.trade.en} {other.en} lives in {other.town.en}.",
        ),
        _pick(
            rng,
            f"{w['he']} carried all {number} of them home to {who.town.en} that {day}.",
            f"that {day} {other.en} counted {o['his']} {story.total} coins with care.",
            f"on the way back to {who.town.en}, {w['he']} lost none of the {number}.",
        ),
    ]


def _journey(story: Story, rng: np.random.Generator) -> list[str]:
    who, other = story.who, story.other
    w = _words(who)
    start, end, days = DAYS[story.day][0], DAYS[story.arrival][0], NUMBERS[story.num_days]
    unit = "day" if story.num_days == 1 else "days"
    return [
        _pick(
            rng,
            f"{_who(who, rng)} left for {other.town.en} on {start}.",
            f"on {start} {_who(who, rng)} set out for {other.town.en}.",
            f"{other.town.en} was where {_who(who, rng)} wanted to go on {start}.",
        ),
        _season(story, rng),
        _pick(
            rng,
            f"the road from {who.town.en} to {other.town.en} takes {days} {unit}, "
            f"so {w['he']} arrived on {end}.",
            f"{w['he']} arrived on {end}, since it is {days} {unit} from {who.town.en} "
            f"to {other.town.en}.",
            f"after {days} {unit} on the road, on {end}, {w['he']} saw {other.town.en}.",
        ),
        _town(other, rng),
        _pick(
            rng,
            f"having left on {start}, {who.en} slept well that {end}.",
            f"{who.en} stayed until the snow, or the heat, was over, and went home to "
            f"{who.town.en}.",
            f"from {other.town.en}, {who.en} wrote a letter home to {who.town.en} that {end}.",
        ),
    ]


def _family(story: Story, rng: np.random.Generator) -> list[str]:
    who, mother = story.who, story.other
    father = story.world.people[who.father]
    w = _words(who)
    return [
        _pick(
            rng,
            f"{who.en} is the {w['child']} of {mother.en} and {father.en}.",
            f"{mother.en} and {father.en} have a {w['child']}, {who.en}.",
            f"the mother of {who.en} is {mother.en}, and {father.en} is the father.",
        ),
        _pick(
            rng,
            f"{mother.en} is {_article(mother.trade.en)} in {mother.town.en}, and {father.en} "
            f"is {_article(father.trade.en)}.",
            f"{father.en} works as {_article(father.trade.en)}, {mother.en} as "
            f"{_article(mother.trade.en)} in {mother.town.en}.",
        ),
        _pick(
            rng,
            f"their {w['child']} was born in {who.born}, when {mother.en} was "
            f"{who.born - mother.born} years old.",
            f"{mother.en}, born in {mother.born}, was {who.born - mother.born} when {who.en} came "
            f"in {who.born}.",
        ),
        _pick(
            rng,
            f"now {who.en} lives in {who.town.en} and makes {who.trade.good.plural}.",
            f"today {w['he']} is {_article(who.trade.en)} in {who.town.en}.",
        ),
        _town(who, rng),
        _pick(
            rng,
            f"{father.en} is proud of {w['him']}, and so is {mother.en}.",
            f"{w['he']} writes to {mother.en} and {father.en} every month.",
        ),
    ]


def _visit(story: Story, rng: np.random.Generator) -> list[str]:
    who, other = story.who, story.other
    w, o = _words(who), _words(other)
    day = DAYS[story.day][0]
    return [
        _season(story, rng),
        _pick(
            rng,
            f"on {day} {who.en} came from {who.town.en} to see {other.en} in {other.town.en}.",
            f"{other.en} of {other.town.en} had a guest on {day}: {who.en} from {who.town.en}.",
        ),
        _pick(
            rng,
            f"{who.en} brought {_article(who.trade.good.singular)}, and {other.en} gave {w['him']} "
            f"{_article(other.trade.good.singular)}.",
            f"{other.en} is {_article(other.trade.en)}, so {o['his']} present was "
            f"{_article(other.trade.good.singular)}; {who.en} had brought "
            f"{_article(who.trade.good.singular)}.",
        ),
        _pick(
            rng,
            f"the {who.trade.en} and the {other.trade.en} talked about {other.town.feature_en} "
            "until midnight.",
            f"together they went to see {other.town.feature_en}, the pride of {other.town.en}.",
        ),
        _pick(
            rng,
            f"{other.en} will come to {who.town.en} next {day}.",
            f"when {who.en} left for {who.town.en}, {other.en} gave {w['him']} {o['his']} hand.",
        ),
    ]


_TELLERS = {
    "profile": _profile, "purchase": _purchase, "journey": _journey, "family": _family,
    "visit": _visit,
}  # fmt: skip
