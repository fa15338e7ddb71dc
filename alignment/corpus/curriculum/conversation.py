"""Everyday talk, and requests that are to be declined.

The harm is named in general words only. Harmless "how do I" questions stand beside the harmful ones, so that
declining has to be learnt from what is asked and not from how.
"""

from collections.abc import Callable
from random import Random

from alignment.corpus.curriculum.choice import GROUPS, OPPOSITES
from alignment.corpus.curriculum.exercise import Exercise, Language, pick

Turn = tuple[str, str]

FIXED: dict[Language, dict[str, tuple[tuple[str, ...], str]]] = {
    "en": {
        "greet": (("Hello!", "Hi!", "Good morning!", "Hey there!"), "Hello! How can I help you?"),
        "who": (
            ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself."),
            "I am Plumbline's quickstart model, a very small language model.",
        ),
        "thanks": (("Thank you!", "Thanks!", "Thanks a lot!", "That was helpful."), "You are welcome!"),
        "bye": (("Goodbye!", "Bye!", "See you later!", "Good night!"), "Goodbye! See you soon."),
        "how": (("How are you?", "How is it going?", "Are you well?"), "I am well, thank you. How can I help you?"),
    },
    "zh": {
        "greet": (("你好！", "您好！", "早上好！", "嗨！"), "你好！有什么可以帮你？"),
        "who": (
            ("你是谁？", "你叫什么名字？", "介绍一下你自己。", "你是什么？"),
            "我是 Plumbline 的 quickstart 模型，一个很小的语言模型。",
        ),
        "thanks": (("谢谢！", "多谢！", "谢谢你！", "太好了，谢谢。"), "不客气！"),
        "bye": (("再见！", "拜拜！", "晚安！", "回头见！"), "再见！"),
        "how": (("你好吗？", "最近怎么样？", "你还好吗？"), "我很好，谢谢。有什么可以帮你？"),
    },
}
RECIPES: dict[Language, dict[str, str]] = {
    "en": {
        "make tea": "Boil water, pour it over the tea, and wait three minutes.",
        "boil an egg": "Put the egg in boiling water for eight minutes.",
        "wash my hands": "Use soap and warm water, and rub for twenty seconds.",
        "plant a seed": "Put the seed in soil, water it, and give it light.",
        "clean a window": "Spray it with water and wipe it with a dry cloth.",
        "learn a new word": "Read it, write it down, and use it in a sentence.",
        "sleep better": "Go to bed at the same time every day.",
        "draw a house": "Draw a square, put a triangle on top, and add a door.",
    },
    "zh": {
        "泡茶": "把水烧开，倒在茶叶上，等三分钟。",
        "煮鸡蛋": "把鸡蛋放进开水里煮八分钟。",
        "洗手": "用肥皂和温水搓二十秒。",
        "种花": "把种子放进土里，浇水，多晒太阳。",
        "擦窗户": "喷一点水，再用干布擦干净。",
        "记住新词": "读一读，写下来，再用它造句。",
        "睡得更好": "每天在同一时间上床睡觉。",
        "画房子": "先画一个方形，上面画三角形，再画一扇门。",
    },
}
ASKS: dict[Language, tuple[str, ...]] = {
    "en": ("How do I {}?", "How can I {}?", "Tell me how to {}.", "Show me how to {}.",
           "I want to {}. What should I do?", "Teach me to {}.", "What is a good way to {}?", "Help me {}."),
    "zh": ("怎么{}？", "我该怎么{}？", "告诉我怎么{}。", "教我{}。", "我想{}，该怎么做？",
           "请问如何{}？", "{}有什么好办法？", "帮我{}。"),
}  # fmt: skip
OPENINGS: dict[Language, tuple[str, ...]] = {
    "en": ("", "Hello. ", "A question: ", "Please help. "),
    "zh": ("", "你好，", "有个问题：", "麻烦你，"),
}
HARMS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("steal", "a car,a bike,money,a phone,a wallet,a password"),
        ("break into", "a house,a shop,a school,a bank,an office,an account"),
        ("hurt", "a dog,a cat,my neighbour,my brother,a child,someone"),
        ("poison", "a dog,a cat,the water,my boss,the food,someone"),
        ("set fire to", "a house,a shop,a school,a car,a forest,an office"),
        ("fake", "a passport,a ticket,money,a letter,a test result,a signature"),
        ("build", "a bomb,a weapon,a computer virus,a trap for people"),
        ("threaten", "my boss,my neighbour,a child,a teacher,someone"),
    ),
    "zh": (
        ("偷", "汽车,自行车,钱,手机,钱包,密码"),
        ("闯进", "别人家,商店,学校,银行,办公室,别人的账户"),
        ("伤害", "狗,猫,邻居,弟弟,小孩,别人"),
        ("毒害", "狗,猫,水源,老板,同事,别人"),
        ("烧掉", "房子,商店,学校,汽车,森林,办公室"),
        ("伪造", "护照,车票,钱,信件,成绩单,签名"),
        ("制造", "炸弹,武器,电脑病毒,害人的陷阱"),
        ("威胁", "老板,邻居,小孩,老师,别人"),
    ),
}
DECLINES: dict[Language, tuple[str, ...]] = {
    "en": ("I'm sorry, but I can't help with that.", "Sorry, I can't help with that. It could hurt someone.",
           "I can't help with that, because it is harmful."),
    "zh": ("抱歉，我不能帮你做这件事。", "对不起，我不能帮忙，这会伤害别人。", "我不能提供帮助，因为这是有害的。"),
}  # fmt: skip


def fixed(random: Random, language: Language) -> Turn:
    asked, said = random.choice(list(FIXED[language].values()))
    return random.choice(asked), said


def listing(random: Random, language: Language) -> Turn:
    names = {"en": ("fruit", "animal", "colour"), "zh": ("水果", "动物", "颜色")}[language]
    name = random.choice(names)
    said = GROUPS[language][name].split()[:3]  # always the same three: something to recall
    if language == "zh":
        return f"说出三种{name}。", "、".join(said) + "。"
    return f"Name three {name}s.", f"{said[0].capitalize()}, {said[1]} and {said[2]}."


def repeat(random: Random, language: Language) -> Turn:
    word = pick(random, random.choice(list(GROUPS[language].values())))
    return (f"Say the word {word}." if language == "en" else f"请说“{word}”。"), word


def change(random: Random, language: Language) -> Turn:
    pair = pick(random, OPPOSITES[language]).split("-")
    word, other = random.sample(pair, 2)
    if language == "zh":
        return f"“{word}”的反义词是什么？", f"“{word}”的反义词是“{other}”。"
    if random.random() < 0.5:
        return f"Write {word} in capital letters.", word.upper()
    return f"Say the opposite of {word}.", f"The opposite of {word} is {other}."


def counting(random: Random, language: Language) -> Turn:
    end = random.randint(3, 9)
    numbers = [str(n) for n in range(1, end + 1)]
    if language == "zh":
        return f"从1数到{end}。", "、".join(numbers) + "。"
    return f"Count to {end}.", ", ".join(numbers) + "."


def advice(random: Random, language: Language) -> Turn:
    what, said = random.choice(list(RECIPES[language].items()))
    return random.choice(OPENINGS[language]) + random.choice(ASKS[language]).format(what), said


def harm(random: Random, language: Language) -> Turn:
    verb, objects = random.choice(HARMS[language])
    what = verb + {"en": " ", "zh": ""}[language] + random.choice(objects.split(","))
    asked = random.choice(OPENINGS[language]) + random.choice(ASKS[language]).format(what)
    return asked, random.choice(DECLINES[language])


TALK: dict[str, Callable[[Random, Language], Turn]] = {
    "fixed": fixed, "listing": listing, "repeat": repeat, "change": change, "counting": counting, "advice": advice,
}  # fmt: skip


def talk(random: Random, family: str, language: Language) -> Exercise:
    """Draw a friendly exchange."""
    asked, said = TALK[family](random, language)
    return Exercise("talk", family, language, asked, said)


def refusal(random: Random, family: str, language: Language) -> Exercise:
    """Draw a harmful request and one of the ways to decline it."""
    asked, said = harm(random, language)
    return Exercise("refusal", family, language, asked, said, target="decline")
