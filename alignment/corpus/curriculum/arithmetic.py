"""Word problems of one or two steps, and bare sums. A word problem's worked answer shows each step as an equation.

A word problem's family is a function from a random source to (question, reasoning, result). Its operands are single
digits: a tiny model meets each fact of the two small tables often, and has one token to copy, since the tokenizer splits
numbers.
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


def digit(random: Random) -> int:
    return random.randint(2, 9)


def get(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    a, b = digit(random), digit(random)
    if language == "en":
        question = f"{one} has {a} {thing}. {two} gives {one} {b} more. How many {thing} does {one} have now?"
        return question, f"{a} + {b} = {a + b} {thing}.", a + b
    question = f"{one}有{a}{thing}，{two}又给{one}{b}{thing}。{one}现在有多少{thing}？"
    return question, f"{a} + {b} = {a + b}{thing}。", a + b


def lose(random: Random, language: Language) -> Problem:
    one, two, thing = scene(random, language)
    b, left = digit(random), digit(random)
    a = left + b
    if language == "en":
        question = f"{one} has {a} {thing} and gives {b} of them to {two}. How many {thing} are left?"
        return question, f"{a} - {b} = {left} {thing}.", left
    return f"{one}有{a}{thing}，送给{two}{b}{thing}。还剩多少{thing}？", f"{a} - {b} = {left}{thing}。", left


def cost(random: Random, language: Language) -> Problem:
    one, _, thing = scene(random, language)
    price, count = digit(random), digit(random)
    if language == "en":
        question = f"{one} buys {count} {thing}. Each costs {price} dollars. How many dollars does {one} pay?"
        return question, f"{count} * {price} = {count * price} dollars.", count * price
    question = f"{one}买了{count}{thing}，每{thing[0]}{price}元。{one}一共付多少元？"
    return question, f"{count} * {price} = {count * price}元。", count * price


def plain(random: Random, language: Language) -> Problem:
    sign = random.choice("+-*/")
    a, b = digit(random), digit(random)
    left, result = {"+": (a, a + b), "-": (a + b, a), "*": (a, a * b), "/": (a * b, a)}[sign]
    word = SIGNS[language][sign]  # in words, so that items that differ in the sign alone differ as texts, too
    question = f"What is {left} {word} {b}?" if language == "en" else f"{left}{word}{b}等于多少？"
    return question, f"{left} {sign} {b} = {result}" + {"en": ".", "zh": "。"}[language], result


def bus(random: Random, language: Language) -> Problem:
    left, b, off = digit(random), digit(random), digit(random)
    a, end = left + off, left + b
    if language == "en":
        question = f"A bus carries {a} people. At the next stop {b} get on and {off} get off. How many people ride on?"
        return question, f"{a} + {b} = {a + b}.\n{a + b} - {off} = {end} people.", end
    question = f"公共汽车上原来坐着{a}人，到站时上来{b}人，下去{off}人，车上变成几人？"
    return question, f"{a} + {b} = {a + b}。\n{a + b} - {off} = {end}人。", end


def age(random: Random, language: Language) -> Problem:
    one, two, _ = scene(random, language)
    young, gap = digit(random), digit(random)
    old = young + gap
    if language == "en":
        question = f"{one} is {old} years old and {two} is {gap} years younger. What is the age of {two}?"
        return question, f"{old} - {gap} = {young} years.", young
    return f"{one}今年{old}岁，{two}的年龄小{gap}岁。{two}今年几岁？", f"{old} - {gap} = {young}岁。", young


SEEN: dict[str, Callable[[Random, Language], Problem]] = {"get": get, "lose": lose, "cost": cost, "plain": plain}
UNSEEN: dict[str, Callable[[Random, Language], Problem]] = {"bus": bus, "age": age}


def word_problem(random: Random, family: str, language: Language) -> Exercise:
    """Draw an exercise of a family, seen or unseen."""
    question, reasoning, result = (SEEN | UNSEEN)[family](random, language)
    return Exercise("math", family, language, question, reasoning, str(result), unseen=family in UNSEEN)


DIGITS = 3  # of a bare sum's operands, at most
SUMS = {"add": "+", "take": "-"}


def bare_sum(random: Random, family: str, language: Language) -> Exercise:
    """Draw `348 + 57 =`: an addition or a subtraction of numbers of one to three digits, nothing below zero."""
    a, b = (random.randrange(10 ** random.randint(1, DIGITS)) for _ in range(2))
    if family == "take" and a < b:
        a, b = b, a
    result = a + b if family == "add" else a - b
    return Exercise("sum", family, language, f"{a} {SUMS[family]} {b} =", target=str(result))
