"""Stories told in Chinese."""

from __future__ import annotations

import numpy as np

from blankfill.demo.corpus.story import Story
from blankfill.demo.corpus.world import DAYS, SEASONS, Good, Person

__all__ = ["tell"]

DIGITS = "零一二三四五六七八九"


def tell(story: Story, rng: np.random.Generator) -> str:
    """Tell a story in four to six sentences, their words and partly their order by chance."""
    sentences = _TELLERS[story.kind](story, rng)
    middle = rng.permutation(len(sentences) - 2) + 1
    return "".join([sentences[0], *(sentences[i] for i in middle), sentences[-1]])


def _pick(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def _number(value: int) -> str:
    """Write a number below one hundred."""
    tens, ones = divmod(value, 10)
    head = "" if not tens else ("十" if tens == 1 else DIGITS[tens] + "十")
    return head + (DIGITS[ones] if ones or not tens else "")


def _count(value: int) -> str:
    """Write a number before a measure word, where two is another word."""
    return "两" if value == 2 else _number(value)


def _of(good: Good, value: int) -> str:
    return f"{_count(value)}{good.measure}{good.zh}"


def _he(person: Person) -> str:
    return "她" if person.female else "他"


def _child(person: Person) -> str:
    return "女儿" if person.female else "儿子"


def _spouse(person: Person) -> str:
    return "妻子" if person.female else "丈夫"


def _who(person: Person, rng: np.random.Generator) -> str:
    return _pick(
        rng,
        f"{person.town.zh}的{person.trade.zh}{person.zh}",
        f"{person.zh}，{person.town.zh}的{person.trade.zh}，",
        f"住在{person.town.zh}的{person.trade.zh}{person.zh}",
    )


def _town(person: Person, rng: np.random.Generator) -> str:
    town = person.town
    return _pick(
        rng,
        f"{town.zh}有{town.feature_zh}。",
        f"没有人离开{town.zh}而不去看{town.feature_zh}。",
        f"一首唱{town.zh}的歌，开头就是{town.feature_zh}。",
        f"{town.feature_zh}，是{town.zh}人的骄傲。",
        f"外乡人来{town.zh}，都要看一看{town.feature_zh}。",
        f"说起{town.feature_zh}，人人都知道那是在{town.zh}。",
    )


def _season(story: Story, rng: np.random.Generator) -> str:
    _, name, _, scene = SEASONS[story.season]
    return _pick(
        rng,
        f"那时是{name}，{scene}。",
        f"{scene}，正是{name}。",
        f"{name}到了，{scene}。",
        f"和往年的{name}一样，{scene}。",
    )


def _work(person: Person, rng: np.random.Generator) -> str:
    good = person.trade.good
    return _pick(
        rng,
        f"{person.zh}做{good.zh}，每{good.measure}卖{_count(good.price)}枚铜钱。",
        f"{_he(person)}做的{good.zh}，一{good.measure}要{_count(good.price)}枚铜钱。",
        f"身为{person.trade.zh}，{_he(person)}靠卖{good.zh}过日子。",
        f"花{_count(good.price)}枚铜钱，就能从{_he(person)}那里买到一{good.measure}{good.zh}。",
    )


def _profile(story: Story, rng: np.random.Generator) -> list[str]:
    who, spouse = story.who, story.other
    day = f"{_number(who.month + 1)}月{_number(who.day)}日"
    return [
        _pick(
            rng,
            f"{who.zh}于{who.born}年{day}生在{who.town.zh}。",
            f"{who.born}年{day}，{who.zh}在{who.town.zh}出生。",
        ),
        _town(who, rng),
        _work(who, rng),
        _pick(
            rng,
            f"{_he(who)}的{_spouse(spouse)}是{spouse.trade.zh}{spouse.zh}。",
            f"{_he(who)}和{spouse.zh}成了家，{spouse.zh}是{spouse.trade.zh}。",
            f"{spouse.trade.zh}{spouse.zh}是{_he(who)}的{_spouse(spouse)}。",
        ),
        _pick(
            rng,
            f"{spouse.zh}生于{spouse.born}年，{who.zh}生于{who.born}年。",
            f"每年{day}，{spouse.zh}都会送{_he(who)}一件礼物。",
        ),
    ]


def _purchase(story: Story, rng: np.random.Generator) -> list[str]:
    who, other, good = story.who, story.other, story.other.trade.good
    day, total, price = DAYS[story.day][1], _number(story.total), _count(good.price)
    return [
        _pick(
            rng,
            f"{day}，{_who(who, rng)}向{other.zh}买了{_of(good, story.number)}。",
            f"{_who(who, rng)}{day}到{other.zh}那里去，买了{_of(good, story.number)}。",
            f"{other.zh}在{day}卖出{_of(good, story.number)}，买的人是{who.town.zh}的{who.zh}。",
        ),
        _pick(
            rng,
            f"一{good.measure}{good.zh}要{price}枚铜钱，所以{who.zh}付了{total}枚。",
            f"{who.zh}付了{total}枚铜钱，因为每{good.measure}{good.zh}要{price}枚。",
            f"每{good.measure}{price}枚，{_count(story.number)}{good.measure}一共{total}枚铜钱。",
        ),
        _pick(
            rng,
            f"{other.zh}是{other.town.zh}的{other.trade.zh}。",
            f"在{other.town.zh}，人人都认识{other.trade.zh}{other.zh}。",
            f"{other.trade.zh}{other.zh}家在{other.town.zh}。",
        ),
        _pick(
            rng,
            f"{day}当天，{_he(who)}就把{_of(good, story.number)}带回了{who.town.zh}。",
            f"那个{day}，{other.zh}把{total}枚铜钱数了又数。",
            f"回{who.town.zh}的路上，{_count(story.number)}{good.measure}{good.zh}一{good.measure}也没有少。",
        ),
    ]


def _journey(story: Story, rng: np.random.Generator) -> list[str]:
    who, other = story.who, story.other
    start, end, days = DAYS[story.day][1], DAYS[story.arrival][1], _count(story.num_days)
    return [
        _pick(
            rng,
            f"{start}，{_who(who, rng)}动身去{other.town.zh}。",
            f"{_who(who, rng)}在{start}出发，要去{other.town.zh}。",
            f"{other.town.zh}是{_who(who, rng)}{start}要去的地方。",
        ),
        _season(story, rng),
        _pick(
            rng,
            f"从{who.town.zh}到{other.town.zh}要走{days}天，所以{_he(who)}{end}才到。",
            f"{_he(who)}{end}到达，因为从{who.town.zh}到{other.town.zh}要走{days}天。",
            f"走了{days}天，到了{end}，{_he(who)}终于看见了{other.town.zh}。",
        ),
        _town(other, rng),
        _pick(
            rng,
            f"{start}出门的{who.zh}，{end}晚上睡得很香。",
            f"{who.zh}住了一阵，然后回{who.town.zh}的家。",
            f"{end}晚上，{who.zh}从{other.town.zh}给{who.town.zh}的家里写了一封信。",
        ),
    ]


def _family(story: Story, rng: np.random.Generator) -> list[str]:
    who, mother = story.who, story.other
    father = story.world.people[who.father]
    age = _number(who.born - mother.born)
    return [
        _pick(
            rng,
            f"{who.zh}是{mother.zh}和{father.zh}的{_child(who)}。",
            f"{mother.zh}和{father.zh}有个{_child(who)}，叫{who.zh}。",
            f"{who.zh}的母亲是{mother.zh}，父亲是{father.zh}。",
        ),
        _pick(
            rng,
            f"{mother.zh}在{mother.town.zh}当{mother.trade.zh}，{father.zh}是{father.trade.zh}。",
            f"{father.zh}是{father.trade.zh}，{mother.zh}是{mother.town.zh}的{mother.trade.zh}。",
        ),
        _pick(
            rng,
            f"{_child(who)}生于{who.born}年，那年{mother.zh}{age}岁。",
            f"{mother.zh}生于{mother.born}年，{age}岁时，也就是{who.born}年，有了{who.zh}。",
        ),
        _pick(
            rng,
            f"如今{who.zh}住在{who.town.zh}，做{who.trade.good.zh}。",
            f"现在{_he(who)}是{who.town.zh}的{who.trade.zh}。",
        ),
        _town(who, rng),
        _pick(
            rng,
            f"{father.zh}为{_he(who)}骄傲，{mother.zh}也是。",
            f"{_he(who)}每个月都给{mother.zh}和{father.zh}写信。",
        ),
    ]


def _visit(story: Story, rng: np.random.Generator) -> list[str]:
    who, other = story.who, story.other
    day, mine, theirs = DAYS[story.day][1], who.trade.good, other.trade.good
    return [
        _season(story, rng),
        _pick(
            rng,
            f"{day}，{who.zh}从{who.town.zh}来到{other.town.zh}看望{other.zh}。",
            f"{other.town.zh}的{other.zh}{day}来了一位客人，是{who.town.zh}的{who.zh}。",
        ),
        _pick(
            rng,
            f"{who.zh}带来一{mine.measure}{mine.zh}，{other.zh}回送一{theirs.measure}{theirs.zh}。",
            f"{other.zh}是{other.trade.zh}，所以送的是一{theirs.measure}{theirs.zh}；"
            f"{who.zh}带来的是一{mine.measure}{mine.zh}。",
        ),
        _pick(
            rng,
            f"{who.trade.zh}和{other.trade.zh}谈起{other.town.feature_zh}，一直谈到半夜。",
            f"两人一同去看{other.town.feature_zh}，那是{other.town.zh}的骄傲。",
        ),
        _pick(
            rng,
            f"下个{day}，{other.zh}要到{who.town.zh}去。",
            f"{who.zh}动身回{who.town.zh}时，{other.zh}握了握{_he(who)}的手。",
        ),
    ]


_TELLERS = {
    "profile": _profile, "purchase": _purchase, "journey": _journey, "family": _family,
    "visit": _visit,
}  # fmt: skip
