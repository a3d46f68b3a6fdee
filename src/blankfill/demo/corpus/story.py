"""What happens in one short document: a few facts that depend on each other, in no language yet.

A story is drawn once and told in one language. Every fact of it is either one of the world's, or
is told twice in different words, so that a blank anywhere can be worked out from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blankfill.demo.corpus.world import DAYS, SEASONS, Person, World

__all__ = ["KINDS", "Story", "draw_story", "held_out"]

KINDS = ("profile", "purchase", "journey", "family", "visit")
"""What a document is about."""
HELD_OUT_SHARE = 11
"""One in this many combinations of two people, or of a person and a place, is never trained on."""


@dataclass(frozen=True, slots=True)
class Story:
    """The facts of one document."""

    kind: str
    who: Person
    other: Person
    season: int
    """Index into SEASONS."""
    day: int
    """Index into DAYS on which it begins."""
    arrival: int
    """Index into DAYS on which the road ends."""
    num_days: int
    """Days on the road from `who`'s town to `other`'s."""
    number: int
    """Pieces bought."""
    total: int
    """Coins paid."""
    world: World

    @property
    def held_out(self) -> bool:
        """Whether this combination is kept from training."""
        return held_out(self.kind, self.who, self.other)


def held_out(kind: str, who: Person, other: Person) -> bool:
    """Tell whether a combination of people is kept from training."""
    return (who.index * 31 + other.index * 17 + KINDS.index(kind) * 7) % HELD_OUT_SHARE == 0


def draw_story(world: World, rng: np.random.Generator) -> Story:
    """Draw one story."""
    kind = KINDS[int(rng.choice(len(KINDS), p=[0.15, 0.25, 0.25, 0.15, 0.2]))]
    who = world.people[int(rng.integers(len(world.people)))]
    if kind == "profile":
        other = world.people[who.spouse]
    elif kind == "family":
        while who.mother < 0:
            who = world.people[int(rng.integers(len(world.people)))]
        other = world.people[who.mother]
    else:
        other = who
        while (
            other is who
            or (kind in ("journey", "visit") and other.town is who.town)
            or (kind == "visit" and other.trade is who.trade)
        ):
            other = world.people[int(rng.integers(len(world.people)))]
    day = int(rng.integers(len(DAYS)))
    num_days = world.days_between.get((who.town.en, other.town.en), 1)
    number = 2 + int(rng.integers(8))
    return Story(
        kind=kind, who=who, other=other, season=int(rng.integers(len(SEASONS))), day=day,
        arrival=(day + num_days) % len(DAYS), num_days=num_days, number=number,
        total=number * other.trade.good.price, world=world,
    )  # fmt: skip
