"""The facts of a small world: towns on a river plain, the people in them, what they make and do.

Everything follows from a seed and is consistent: a daughter's mother has that daughter, a price
times a number is a total, the day of arrival is the day of departure plus the length of the road.
"""

from __future__ import annotations

from dataclasses import dataclass

from blankfill import rng

__all__ = ["DAYS", "SEASONS", "Good", "Person", "Town", "Trade", "World", "build_world"]


@dataclass(frozen=True, slots=True)
class Town:
    """A place."""

    en: str
    zh: str
    feature_en: str
    feature_zh: str


@dataclass(frozen=True, slots=True)
class Good:
    """Something that is sold by the piece."""

    singular: str
    plural: str
    zh: str
    measure: str
    price: int


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade, and the good that it makes."""

    en: str
    zh: str
    good: Good


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, with everything that never changes about them."""

    index: int
    en: str
    zh: str
    female: bool
    trade: Trade
    town: Town
    born: int
    month: int
    day: int
    spouse: int
    mother: int
    father: int
    friend: int


@dataclass(frozen=True, slots=True)
class World:
    """All facts."""

    people: tuple[Person, ...]
    towns: tuple[Town, ...]
    trades: tuple[Trade, ...]
    days_between: dict[tuple[str, str], int]
    """Days on the road between two towns, by their English names, either way."""


DAYS = (
    ("Monday", "星期一"), ("Tuesday", "星期二"), ("Wednesday", "星期三"), ("Thursday", "星期四"),
    ("Friday", "星期五"), ("Saturday", "星期六"), ("Sunday", "星期日"),
)  # fmt: skip
SEASONS = (
    ("spring", "春天", "the plum trees were in flower", "梅花正开"),
    ("summer", "夏天", "the evenings were long and warm", "傍晚又长又暖"),
    ("autumn", "秋天", "the rice had turned yellow", "稻子已经黄了"),
    ("winter", "冬天", "snow lay on the roofs", "屋顶上积着雪"),
)

_TOWNS = (
    ("Willow Ford", "柳渡", "an old stone bridge", "一座古老的石桥"),
    ("Heron Bay", "鹭湾", "a harbour full of herons", "一个落满白鹭的港口"),
    ("Cloud Gate", "云门", "a gate high in the hills", "山上高高的城门"),
    ("Lotus Lake", "莲湖", "a lake covered with lotus", "一片开满莲花的湖"),
    ("Stone Mill", "石磨镇", "a mill that never stops", "一座从不停歇的水磨"),
    ("Silver Well", "银井", "a well of very clear water", "一口清澈见底的井"),
    ("Old Harbour", "旧港", "a lighthouse without a keeper", "一座无人看守的灯塔"),
    ("North Ferry", "北渡口", "a ferry with a blue sail", "一条挂蓝帆的渡船"),
    ("Bamboo Bend", "竹湾", "a river bend full of bamboo", "长满竹子的河湾"),
    ("Crane Marsh", "鹤泽", "white cranes in the reeds", "芦苇间的白鹤"),
)
_TRADES = (
    ("baker", "面包师", "loaf", "loaves", "面包", "个", 3),
    ("potter", "陶匠", "bowl", "bowls", "碗", "只", 4),
    ("weaver", "织工", "blanket", "blankets", "毯子", "条", 9),
    ("blacksmith", "铁匠", "knife", "knives", "刀", "把", 7),
    ("carpenter", "木匠", "chair", "chairs", "椅子", "把", 8),
    ("lamp maker", "灯匠", "lamp", "lamps", "灯", "盏", 6),
    ("bookbinder", "装订匠", "notebook", "notebooks", "本子", "册", 5),
    ("hatter", "帽匠", "hat", "hats", "帽子", "顶", 4),
    ("shoemaker", "鞋匠", "pair of boots", "pairs of boots", "靴子", "双", 10),
    ("umbrella maker", "伞匠", "umbrella", "umbrellas", "伞", "把", 5),
)
_WOMEN = (
    ("Anna", "安娜"),
    ("Clara", "克莱拉"),
    ("Dora", "朵拉"),
    ("Flora", "芙洛"),
    ("Hanna", "汉娜"),
    ("Ida", "依达"),
    ("Lin Mei", "林梅"),
    ("Wang Yue", "王月"),
    ("Chen Hua", "陈华"),
    ("Zhao Qing", "赵晴"),
    ("Sun Lan", "孙兰"),
    ("Zhou Xue", "周雪"),
)
_MEN = (
    ("Adam", "亚当"), ("Bruno", "布鲁诺"), ("Dominik", "多明"), ("Emil", "埃米尔"),
    ("Felix", "费利"), ("Hugo", "雨果"), ("Li Wei", "李伟"), ("Zhang Bo", "张波"),
    ("Liu Yang", "刘洋"), ("Huang Tao", "黄涛"), ("Ma Jun", "马骏"), ("Gao Feng", "高峰"),
)  # fmt: skip


def build_world(seed: int) -> World:
    """Draw the facts that a seed stands for."""
    draw = rng.generator(seed, "world")
    towns = tuple(Town(*row) for row in _TOWNS)
    trades = tuple(
        Trade(en, zh, Good(one, many, name, measure, price))
        for en, zh, one, many, name, measure, price in _TRADES
    )
    couples = len(_WOMEN)
    women, men = draw.permutation(couples), draw.permutation(couples)
    people: list[Person] = []
    # Couple c: woman 2c, man 2c + 1. The first third are parents of the second, they of the third.
    for c in range(couples):
        generation = c * 3 // couples
        for female in (True, False):
            name = _WOMEN[women[c]] if female else _MEN[men[c]]
            own = 2 * c + (not female)
            # Spouses come from different parents of the generation before.
            parents = -1
            if generation:
                size = couples // 3
                shift = 0 if female else 1
                parents = (generation - 1) * size + (c % size + shift) % size
            people.append(
                Person(
                    index=own, en=name[0], zh=name[1], female=female,
                    trade=trades[int(draw.integers(len(trades)))],
                    town=towns[int(draw.integers(len(towns)))],
                    born=1800 + 25 * generation + int(draw.integers(12)),
                    month=int(draw.integers(12)), day=1 + int(draw.integers(28)),
                    spouse=2 * c + int(female), mother=2 * parents if generation else -1,
                    father=2 * parents + 1 if generation else -1,
                    friend=int((own + 2 + draw.integers(2 * couples - 4)) % (2 * couples)),
                )
            )  # fmt: skip
    days: dict[tuple[str, str], int] = {}
    for i, a in enumerate(towns):
        for b in towns[:i]:
            days[a.en, b.en] = days[b.en, a.en] = 1 + int(draw.integers(5))
    return World(tuple(people), towns, trades, days)
