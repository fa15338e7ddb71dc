"""Multiple-choice questions with four options, in C-Eval's format; what is asked needs a look-up or a small sum.

A family is a function from a random source to (question, right option, three wrong ones). The options are shuffled,
so each letter is right equally often.
"""

from collections.abc import Callable
from random import Random

from alignment.corpus.curriculum.exercise import LETTERS, Exercise, Language

Ask = tuple[str, str, list[str]]

OPPOSITES = {
    "en": "big-small hot-cold fast-slow high-low old-young good-bad wet-dry open-closed long-short hard-soft "
    "full-empty rich-poor light-dark happy-sad early-late strong-weak",
    "zh": "大-小 高-低 快-慢 冷-热 长-短 多-少 新-旧 好-坏 远-近 黑-白 轻-重 开-关 左-右 上-下 早-晚 强-弱",
}
GROUPS = {
    "en": {
        "fruit": "apple pear banana grape lemon mango melon cherry",
        "animal": "dog cat horse cow sheep pig lion duck",
        "colour": "red blue green yellow pink brown grey black",
        "part of the body": "hand foot nose ear eye leg arm head",
        "thing to wear": "hat coat shoe shirt sock dress scarf belt",
    },
    "zh": {
        "水果": "苹果 梨 桃子 葡萄 西瓜 香蕉 橘子 草莓",
        "动物": "狗 猫 马 牛 羊 猪 狮子 鸭子",
        "颜色": "红色 蓝色 绿色 黄色 紫色 灰色 粉色 棕色",
        "身体部位": "手 脚 鼻子 耳朵 眼睛 腿 头 嘴",
        "衣物": "帽子 外套 鞋子 衬衫 袜子 裙子 围巾 手套",
    },
}


def same(random: Random, language: Language) -> Ask:
    words = [word for group in GROUPS[language].values() for word in group.split()]
    right, *wrong = random.sample(words, 4)
    return (f"Which word is {right}?" if language == "en" else f"哪个词是“{right}”？"), right, wrong


def largest(random: Random, language: Language) -> Ask:
    *wrong, right = sorted(random.sample(range(10, 100), 4))
    return ("Which number is the largest?" if language == "en" else "哪个数最大？"), str(right), [*map(str, wrong)]


def opposite(random: Random, language: Language) -> Ask:
    pairs = [pair.split("-") for pair in OPPOSITES[language].split()]
    chosen = random.sample(pairs, 4)
    (word, right), *others = [random.sample(pair, 2) for pair in chosen]
    question = f"What is the opposite of {word}?" if language == "en" else f"“{word}”的反义词是哪个？"
    return question, right, [other[0] for other in others]


def smallest(random: Random, language: Language) -> Ask:
    right, *wrong = sorted(random.sample(range(10, 100), 4))
    return (
        ("Pick the option whose amount is least." if language == "en" else "请选出数值最少的一项。"),
        str(right),
        [*map(str, wrong)],
    )


def odd_one_out(random: Random, language: Language) -> Ask:
    three, one = random.sample(list(GROUPS[language].values()), 2)
    question = "Find the one that does not fit with the rest." if language == "en" else "请找出与其余三项不同类的一项。"
    return question, random.choice(one.split()), random.sample(three.split(), 3)


SEEN: dict[str, Callable[[Random, Language], Ask]] = {"same": same, "largest": largest, "opposite": opposite}
UNSEEN: dict[str, Callable[[Random, Language], Ask]] = {"smallest": smallest, "odd_one_out": odd_one_out}


def choice(random: Random, family: str, language: Language) -> Exercise:
    """Draw a question of a family with its four options in random order."""
    question, right, wrong = (SEEN | UNSEEN)[family](random, language)
    choices = random.sample([right, *wrong], 4)
    letter = LETTERS[choices.index(right)]
    return Exercise("choice", family, language, question, target=letter, choices=tuple(choices), unseen=family in UNSEEN)
