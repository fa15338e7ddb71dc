"""Word problems of one or two steps. The worked answer shows each step as an equation.

A family is a function from a random source to (question, reasoning, result); results stay below 100.
All families share two small tables, so that a tiny model meets each fact often: a two-digit number plus or minus a
digit, and the times table. Numbers of the same role have the same number of digits: what is copied then stands at the
same distance in every item of a family, which a tiny model finds thousands of updates earlier.
"""

from collections.abc import Callable
from random import Random

from alignment.corpus.curriculum.exercise import Exercise, Language, pick

Problem = tuple[str, str, int]

NAMES = "Tom Anna Ben Lucy Sam Mia Jack Ella"
THINGS = "apples books pens cards eggs cups stones cakes"
NAMES_ZH = "小明 小红 小华 小丽 小军 小美"
THINGS_ZH = "个苹果 本书 支笔 张卡片 个鸡蛋 块糖 个杯子 朵花"  # each with its measure word

SIGNS: dict[Language, dict[str, str]] = {
    "en": {"+": "plus", "-": "minus", "*": "times", "/": "divided by"},
    "zh": {"+": "加", "-": "减", "*": "乘", "/": "除以"},
}


def scene(random: Random, language: Language) -> tuple[str, str, str]:
    """Two different people and a thing to count."""
    names, things = (NAMES, THINGS) if language == "en" else (NAMES_ZH, THINGS_ZH)
    first, second = random.sample(names.split(), 2)
    return first, second, pick(random, things)


def large(random: Random) -> int:
    """A two-digit number that stays one after adding a digit."""
    return random.randint(11, 40)


def factors(random: Random) -> tuple[int, int]:
    """Two digits whose product has two."""
    return random.choice([(a, b) for a in range(2, 10) for b in range(2, 10) if a * b >= 10])


def get(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    a, b = large(random), random.randint(2, 9)
    if language == "en":
        question = f"{one} has {a} {thing}. {two} gives {one} {b} more. How many {thing} does {one} have now?"
        return question, f"{a} + {b} = {a + b} {thing}.", a + b
    question = f"{one}有{a}{thing}，{two}又给{one}{b}{thing}。{one}现在有多少{thing}？"
    return question, f"{a} + {b} = {a + b}{thing}。", a + b


def lose(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    b, left = random.randint(2, 9), large(random)
    a = left + b
    if language == "en":
        question = f"{one} has {a} {thing} and gives {b} of them to {two}. How many {thing} are left?"
        return question, f"{a} - {b} = {left} {thing}.", left
    return f"{one}有{a}{thing}，送给{two}{b}{thing}。还剩多少{thing}？", f"{a} - {b} = {left}{thing}。", left


def cost(random: Random, language: Language) -> Problem:
    one, _, thing = scene(random, language)
    price, count = factors(random)
    if language == "en":
        question = f"{one} buys {count} {thing}. Each costs {price} dollars. How many dollars does {one} pay?"
        return question, f"{count} * {price} = {count * price} dollars.", count * price
    question = f"{one}买了{count}{thing}，每{thing[0]}{price}元。{one}一共付多少元？"
    return question, f"{count} * {price} = {count * price}元。", count * price


def share(random: Random, language: Language) -> Problem:
    one, _, thing = scene(random, language)
    friends, each = factors(random)
    total = friends * each
    if language == "en":
        question = f"{one} shares {total} {thing} among {friends} friends. How many {thing} does each friend get?"
        return question, f"{total} / {friends} = {each} {thing}.", each
    question = f"{one}把{total}{thing}平均分给{friends}个朋友。每人得多少{thing}？"
    return question, f"{total} / {friends} = {each}{thing}。", each


def compare(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    b, more = random.randint(2, 9), large(random)
    a = b + more
    if language == "en":
        question = f"{one} has {a} {thing} and {two} has {b}. How many more {thing} does {one} have than {two}?"
        return question, f"{a} - {b} = {more} {thing}.", more
    return f"{one}有{a}{thing}，{two}有{b}{thing}。{one}比{two}多多少{thing}？", f"{a} - {b} = {more}{thing}。", more


def boxes(random: Random, language: Language) -> Problem:
    _, _, thing = scene(random, language)
    a, b = factors(random)
    if language == "en":
        question = f"There are {a} boxes with {b} {thing} in each box. How many {thing} are there in all?"
        return question, f"{a} * {b} = {a * b} {thing}.", a * b
    return f"有{a}个盒子，每个盒子里有{b}{thing}。一共有多少{thing}？", f"{a} * {b} = {a * b}{thing}。", a * b


def give_then_find(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    b, c, left = random.randint(2, 9), random.randint(2, 9), large(random)
    a, end = left + b, left + c
    if language == "en":
        question = f"{one} has {a} {thing}. {one} gives {two} {b} and then finds {c}. How many {thing} does {one} have?"
        return question, f"{a} - {b} = {left}.\n{left} + {c} = {end} {thing}.", end
    question = f"{one}有{a}{thing}，先给{two}{b}{thing}，后来又找到{c}{thing}。{one}有多少{thing}？"
    return question, f"{a} - {b} = {left}。\n{left} + {c} = {end}{thing}。", end


def bags_and_more(random: Random, language: Language) -> Problem:
    one, _, thing = scene(random, language)
    (a, b), c = factors(random), random.randint(2, 9)
    end = a * b + c
    if language == "en":
        question = f"{one} has {a} bags of {b} {thing} and {c} single {thing}. How many {thing} does {one} have?"
        return question, f"{a} * {b} = {a * b}.\n{a * b} + {c} = {end} {thing}.", end
    question = f"{one}有{a}袋{thing[1:]}，每袋{b}{thing[0]}，另外还有{c}{thing}。{one}一共有多少{thing}？"
    return question, f"{a} * {b} = {a * b}。\n{a * b} + {c} = {end}{thing}。", end


def plain(random: Random, language: Language) -> Problem:
    sign = random.choice("+-*/")
    a, b = (large(random), random.randint(2, 9)) if sign in "+-" else factors(random)
    left, result = {"+": (a, a + b), "-": (a + b, a), "*": (a, a * b), "/": (a * b, a)}[sign]
    word = SIGNS[language][sign]  # in words, so that items that differ in the sign alone differ as texts, too
    question = f"What is {left} {word} {b}?" if language == "en" else f"{left}{word}{b}等于多少？"
    return question, f"{left} {sign} {b} = {result}" + {"en": ".", "zh": "。"}[language], result


def bus(random: Random, language: Language) -> Problem:
    a, b, off = large(random), random.randint(2, 9), random.randint(2, 9)
    end = a + b - off
    if language == "en":
        question = f"A bus carries {a} people. At the next stop {b} get on and {off} get off. How many people ride on?"
        return question, f"{a} + {b} = {a + b}.\n{a + b} - {off} = {end} people.", end
    question = f"公共汽车上原来坐着{a}人，到站时上来{b}人，下去{off}人，车上变成几人？"
    return question, f"{a} + {b} = {a + b}。\n{a + b} - {off} = {end}人。", end


def age(random: Random, language: Language) -> Problem:
    one, two, _ = scene(random, language)
    young, gap = large(random), random.randint(2, 9)
    old = young + gap
    if language == "en":
        question = f"{one} is {old} years old and {two} is {gap} years younger. What is the age of {two}?"
        return question, f"{old} - {gap} = {young} years.", young
    return f"{one}今年{old}岁，{two}的年龄小{gap}岁。{two}今年几岁？", f"{old} - {gap} = {young}岁。", young


SEEN: dict[str, Callable[[Random, Language], Problem]] = {
    "get": get, "lose": lose, "cost": cost, "share": share, "compare": compare, "boxes": boxes,
    "give_then_find": give_then_find, "bags_and_more": bags_and_more, "plain": plain,
}  # fmt: skip
UNSEEN: dict[str, Callable[[Random, Language], Problem]] = {"bus": bus, "age": age}


def word_problem(random: Random, family: str, language: Language) -> Exercise:
    """Draw an exercise of a family, seen or unseen."""
    question, reasoning, result = (SEEN | UNSEEN)[family](random, language)
    return Exercise("math", family, language, question, reasoning, str(result), unseen=family in UNSEEN)
