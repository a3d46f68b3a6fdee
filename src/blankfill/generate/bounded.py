"""Fills within bounds: which tokens may come next, so that all bounds are obeyed at the end.

Every bound says which tokens it allows, and what all allow may come: words and characters
(`words.py`), a regular expression (`expression.py`), the only fills that there may be (a tree of
their tokens), and how many tokens there are. Probabilities stay those of the model: a bound decides
what may be chosen, and changes no number.

Shapes: V ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from blankfill.config.filling import Bounds
from blankfill.config.ranges import shown
from blankfill.errors import RequestError
from blankfill.generate.boundaries import Edges
from blankfill.generate.endings import Stops
from blankfill.generate.expression import Expression, Matching, expression_of
from blankfill.generate.spelling import spelling_of
from blankfill.generate.words import Automaton, Phrases, automaton_of
from blankfill.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from blankfill.objective.batch import Int32

__all__ = ["BoundFill", "bound_fill", "check_bounds"]

Tree = dict[int, "Tree"]
"""Tokens that may come next, and what after each; the end of a fill is -1."""
_END = -1
_META = frozenset("\\.+*?()|[]{}^$#&-~/")


class State(NamedTuple):
    """Where a fill stands."""

    place: int
    """In the automaton of words."""
    matching: Matching | None
    """In the expression."""
    tree: Tree | None
    """In the tree of the only fills."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BoundFill:
    """What the fill of one blank has to be like (a `writing.Rule`)."""

    tokenizer: TextTokenizer
    least: int
    """Least tokens."""
    most: int
    """Most tokens."""
    skipped: int
    """Characters at its front that are of the text."""
    edges: Edges
    """The text around it."""
    stops: Stops
    """It ends before the first of these."""
    automaton: Automaton | None
    expression: Expression | None
    tree: Tree | None

    @property
    def start(self) -> State:
        """State of a fill without tokens."""
        matching = None if self.expression is None else self.expression.start
        return State(0, matching, self.tree)

    def allowed(self, state: State, written: int) -> npt.NDArray[np.bool_]:
        """Say which tokens may come next, `[V]`."""
        left = self.most - written
        mask = np.full(self.tokenizer.vocab_size, left > 0)
        ends = written >= self.least
        if self.automaton is not None:
            row = self.automaton.following[state.place]
            mask &= self.automaton.distance[row] < left
            ends = ends and bool(self.automaton.accepts[state.place])
        if self.expression is not None and state.matching is not None:
            mask &= self.expression.allowed(state.matching)
            ends = ends and self.expression.may_end(state.matching)
        if state.tree is not None:
            known = np.zeros(len(mask), np.bool_)
            known[[token for token in state.tree if token != _END]] = True
            mask &= known
            ends = ends and _END in state.tree
        mask[[self.tokenizer.ids.eop, self.tokenizer.ids.eos]] = ends
        return mask

    def nearer(self, state: State, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Say which tokens may come next where the model would end, and may not yet: of those that
        may come, `[V]`, the ones that lead nearer to where the fill may end."""
        if self.automaton is None or not self.automaton.distance[state.place]:
            return mask
        row = self.automaton.following[state.place]
        leads = mask & (self.automaton.distance[row] < self.automaton.distance[state.place])
        return leads if leads.any() else mask

    def after(self, state: State, token: int) -> State:
        """Give the state after one more token."""
        place, matching, tree = state
        if self.automaton is not None:
            place = int(self.automaton.following[place, token])
        if self.expression is not None and matching is not None:
            matching = self.expression.after(matching, token)
        return State(place, matching, None if tree is None else tree[token])

    def cut(self, tokens: Sequence[int]) -> list[int] | None:
        """Give what is left of a fill that holds a text to stop at; None of one that does not."""
        if not self.stops.texts:
            return None
        text = self.tokenizer.decode(tokens)
        found = self.stops.first_in(text, self.skipped)
        if found is None:
            return None
        kept = text[: found[0]]
        count = len(tokens)
        while not kept.startswith(self.tokenizer.decode(tokens[:count])):
            count -= 1
        rest = kept[len(self.tokenizer.decode(tokens[:count])) :] + self.edges.behind
        return [*tokens[:count], *(self.tokenizer.encode(rest).tolist() if rest else [])]

    def obeys(self, tokens: Sequence[int]) -> bool:
        """Tell whether a whole fill obeys the bounds about its characters."""
        state = self.start._replace(tree=None)
        for written, token in enumerate(tokens):
            if not self.allowed(state, written)[token]:
                return False
            state = self.after(state, token)
        return bool(self.allowed(state, len(tokens))[self.tokenizer.ids.eop])


def bound_fill(
    tokenizer: TextTokenizer, bounds: Bounds, edges: Edges, *, max_new_tokens: int, longest: int
) -> BoundFill:
    """Make the rule of one blank.

    Args:
        tokenizer: the model's.
        bounds: what every fill has to be like.
        edges: the text around the blank.
        max_new_tokens: most tokens of a fill where the bounds do not say.
        longest: most tokens that the model writes into a blank.

    Raises:
        RequestError: no fill can obey the bounds, or the vocabulary cannot follow them.
    """
    bounds.check_limit(max_new_tokens)
    most = min((bounds.max_tokens or max_new_tokens) + edges.num_held, longest)
    if bounds.min_tokens > most:
        raise RequestError(
            f"min_tokens={bounds.min_tokens} is above the {longest:,} that this model writes "
            "into a blank; lower it"
        )
    leads = bounds.begin_with or bounds.regex is not None or bounds.allowed
    space = " " if leads and edges.after_space and not bounds.begin_with[:1].isspace() else ""
    begin = edges.before + space
    phrases = Phrases(
        begin=begin + bounds.begin_with, end=bounds.end_with + edges.behind,
        required=tuple(bounds.required), forbidden=tuple(bounds.forbidden),
        has_inside=bool(edges.num_held),
    )  # fmt: skip
    automaton = expression = None
    if any(phrases) and not (bounds.allowed and phrases == Phrases(begin=space)):
        automaton = automaton_of(spelling_of(tokenizer), phrases)
        _check_room(int(automaton.distance[0]), most, bounds)
    if bounds.regex is not None:
        pattern = f"{_literal(begin)}(?:{bounds.regex}){_literal(edges.behind)}"
        expression = expression_of(spelling_of(tokenizer), pattern, bounds.regex, most)
    rule = BoundFill(
        tokenizer=tokenizer, least=bounds.min_tokens, most=most, skipped=len(begin), edges=edges,
        stops=Stops(tuple(bounds.stop), tokenizer), automaton=automaton, expression=expression,
        tree=None,
    )  # fmt: skip
    if not bounds.allowed:
        return rule
    return replace(rule, tree=_tree(rule, bounds.allowed, begin, most))


def check_bounds(
    tokenizer: TextTokenizer, bounds: Bounds, longest: int, max_new_tokens: int
) -> None:
    """Find out whether a model can obey bounds at all, before its weights are loaded.

    Raises:
        RequestError: it cannot.
    """
    if bounds:
        bound_fill(tokenizer, bounds, Edges(), max_new_tokens=max_new_tokens, longest=longest)


def _check_room(needed: int, most: int, bounds: Bounds) -> None:
    if needed > most:
        held = [*bounds.required, bounds.begin_with, bounds.end_with]
        longest = max(held, key=len)
        raise RequestError(
            f"a fill that holds {shown(longest)} and whatever else the bounds ask for takes at "
            f"least {needed} tokens, and may have {most}; raise max_tokens or max_new_tokens"
        )


def _tree(rule: BoundFill, allowed: Sequence[str], begin: str, most: int) -> Tree:
    """Make the tree of the only fills that obey the other bounds.

    Raises:
        RequestError: one has no tokens or too many, or none obeys the other bounds.
    """
    tree: Tree = {}
    for number, fill in enumerate(allowed, start=1):
        begun = "" if fill[0].isspace() and begin == " " else begin
        tokens = rule.tokenizer.encode(begun + fill + rule.edges.behind)
        if not len(tokens) or not rule.tokenizer.decode(tokens).strip():
            raise RequestError(
                f"the model's tokenizer has no token for allowed fill {number}, {shown(fill)}; "
                "take it out"
            )
        if len(tokens) > most:
            raise RequestError(
                f"allowed fill {number}, {shown(fill)}, has {len(tokens):,} tokens and a fill may "
                f"have {most:,}; raise max_tokens or max_new_tokens"
            )
        if rule.obeys(tokens.tolist()):
            _grow(tree, tokens)
    if not tree:
        raise RequestError(
            "none of the allowed fills obeys the other bounds; loosen these, or allow others"
        )
    return tree


def _grow(tree: Tree, tokens: Int32) -> None:
    for token in tokens.tolist():
        tree = tree.setdefault(token, {})
    tree[_END] = {}


def _literal(text: str) -> str:
    """Write characters so that an expression matches exactly them."""
    return "".join("\\" + character if character in _META else character for character in text)
