"""The curriculum: pools are disjoint, tests tell a function from a stub, unseen templates stay unseen."""

import json
import re
from collections import Counter
from random import Random
from types import SimpleNamespace

import pytest

from alignment.corpus.curriculum import arithmetic, choice, conversation, exercise, programming
from alignment.corpus.curriculum.write import DRAW, LANGUAGES, SEEN, UNSEEN, problem, write
from alignment.errors import RecipeError
from alignment.recipe import Curriculum
from alignment.verify import judge

RECIPE = Curriculum.model_construct(
    seed=3,
    documents=300,
    instructions=400,
    problems=200,
    heldout_problems=60,
    heldout_items=60,
    careless=0.2,
    shares={"math": 0.35, "code": 0.2, "choice": 0.25, "talk": 0.1, "refusal": 0.1},
)
FAMILIES = [
    (kind, family, language)
    for table in (SEEN, UNSEEN)
    for kind, families in table.items()
    for family in families
    for language in LANGUAGES.get(kind, ("en", "zh"))
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("curriculum")
    counts = write(RECIPE, SimpleNamespace(path=path), None)
    return SimpleNamespace(path=path, counts=counts, **{name: rows(path / f"{name}.jsonl") for name in NAMES})


NAMES = ("documents", "instructions", "problems")


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(written, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "other").mkdir()
    write(RECIPE, SimpleNamespace(path=tmp_path / "again"), None)
    write(RECIPE.model_copy(update={"seed": 4}), SimpleNamespace(path=tmp_path / "other"), None)
    assert len(written.counts) == 8
    for name, count in written.counts.items():
        first = (written.path / name).read_bytes()
        assert count > 0
        assert first.count(b"\n") == count
        assert first == (tmp_path / "again" / name).read_bytes()
        assert first != (tmp_path / "other" / name).read_bytes()


def test_what_is_asked_is_in_one_pool_only(written):
    """Told in the words of the document, every evaluation and preference item is absent from all training text."""
    text = "\n".join(row["text"] for row in written.documents)
    asked = {row["messages"][0]["content"] for row in written.instructions}
    asked |= {question for row in written.documents for question in re.findall(r"Question: (.*)\n", row["text"])}
    train = {row["prompt"] for row in written.problems if row["split"] == "train"}
    heldout = {row["prompt"] for row in written.problems if row["split"] == "heldout"}
    test = {row["question"] for row in rows(written.path / "heldout/mini-gsm8k/test.jsonl")}
    test |= {row["prompt"] for row in rows(written.path / "heldout/mini-humaneval/HumanEval.jsonl")}
    test |= {choice_prompt(row) for row in rows(written.path / "heldout/mini-ceval/val.jsonl")}
    shots = {row["question"] for row in rows(written.path / "heldout/mini-gsm8k/train.jsonl")}
    shots |= {choice_prompt(row) for row in rows(written.path / "heldout/mini-ceval/dev.jsonl")}
    assert not shots & (asked | train | heldout | test)
    assert min(len(row["text"]) for row in written.documents) >= 200
    assert len(train) == RECIPE.problems
    assert len(heldout) == RECIPE.heldout_problems
    assert len(test) == 3 * RECIPE.heldout_items
    assert not train & heldout
    assert not (train | heldout) & test
    assert not (train | heldout | test) & asked
    assert not [prompt for prompt in test if "\nA. " in prompt or prompt.startswith("def ") if prompt in text]


def choice_prompt(row):
    return row["question"] + "".join(f"\n{letter}. {row[letter]}" for letter in "ABCD")


def test_a_choice_with_its_options_reordered_is_the_same_item():
    item = choice.choice(Random(0), "opposite", "en")
    other = exercise.Exercise(item.kind, item.family, item.language, item.question, choices=item.choices[::-1])
    assert exercise.identity(item) == exercise.identity(other)


@pytest.mark.parametrize(("kind", "family", "language"), FAMILIES)
def test_every_family_is_short_and_reaches_every_pool_it_may_be_in(kind, family, language):
    random = Random(1)
    items = [DRAW[kind](random, family, language) for _ in range(400)]
    assert max(len(exercise.passage(item)) for item in items) < 260
    pools = {"train"} if kind == "talk" else {"evaluation"} if family in UNSEEN.get(kind, ()) else set(exercise.POOLS)
    assert {exercise.pool(item) for item in items} == pools


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("family", [*arithmetic.SEEN, *arithmetic.UNSEEN])
def test_the_steps_of_a_word_problem_are_true_and_end_in_its_answer(family, language):
    random = Random(2)
    for _ in range(100):
        item = arithmetic.word_problem(random, family, language)
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", item.reasoning)
        assert steps
        for left, sign, right, result in steps:
            assert eval(f"{left} {sign} {right}") == int(result)
        assert steps[-1][-1] == item.target
        assert 0 < int(item.target) < 100


@pytest.mark.parametrize("family", [*programming.SEEN, *programming.UNSEEN])
def test_a_function_passes_its_tests_and_no_stub_does(family):
    random = Random(4)
    for _ in range(30):
        item = programming.function(random, family)
        assert passes(item, item.reasoning)
        argument = re.search(r"\((\w+)\)", item.question).group(1)
        constants = [line.split(" == ")[1] for line in item.tests.splitlines()[1:]]
        stubs = ["pass", *(f"return {value}" for value in (argument, "None", "0", "1", "True", "[]", "''", *constants))]
        assert [stub for stub in stubs if passes(item, f"    {stub}\n")] == []


def passes(item, body):
    space = {}
    exec(item.question + body + "\n" + item.tests, space)
    try:
        space["check"](space[item.entry_point])
    except (AssertionError, TypeError):
        return False
    return True


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("family", [*choice.SEEN, *choice.UNSEEN])
def test_the_four_options_differ_and_each_letter_is_right_equally_often(family, language):
    random = Random(5)
    items = [choice.choice(random, family, language) for _ in range(1000)]
    assert all(len(set(item.choices)) == 4 for item in items)
    assert all(200 < count < 300 for count in Counter(item.target for item in items).values())


@pytest.mark.parametrize("kind", ["math", "choice", "refusal", "code"])
def test_the_verifier_accepts_our_own_answers_and_not_those_to_another_question(kind):
    random = Random(9)
    families = [(family, language) for name, family, language in FAMILIES if name == kind]
    items = [DRAW[kind](random, *each) for each in (families[:2] if kind == "code" else families * 20)]
    assert all(each.correct for each in judge.verify_many([(problem(item), exercise.answer(item)) for item in items]))
    other = exercise.answer(conversation.talk(random, "advice", "en"))
    assert not any(each.correct for each in judge.verify_many([(problem(item), other) for item in items]))


@pytest.mark.parametrize("kind", ["math", "code"])
def test_a_careless_answer_is_wrong_and_its_length_does_not_tell(kind):
    random = Random(5)
    items = [DRAW[kind](random, random.choice(SEEN[kind]), "en") for _ in range(100)]
    pairs = [(item, exercise.careless(item, random)) for item in items]
    some = [(problem(item), text) for item, text in pairs[:16]]
    assert not any(verdict.correct for verdict in judge.verify_many(some))
    assert 30 < sum(len(text) > len(exercise.answer(item)) for item, text in pairs) < 70


def test_the_recipe_says_how_many_instructions_are_careless_and_nothing_else_is(written, tmp_path):
    def careless(rows):
        marks = "Maybe", "I would guess", "大概是", "我猜", "    pass", "left for later"
        return sum(any(mark in json.dumps(row, ensure_ascii=False) for mark in marks) for row in rows)

    able = [row for row in written.instructions if row["domain"] in ("curriculum-math", "curriculum-code")]
    assert 0.12 < careless(able) / len(able) < 0.28
    assert careless(able) == careless(written.instructions)
    assert not careless(written.documents)
    write(RECIPE.model_copy(update={"careless": 0.0}), SimpleNamespace(path=tmp_path), None)
    assert not careless(rows(tmp_path / "instructions.jsonl"))


def test_the_right_number_is_the_largest():
    random = Random(6)
    for _ in range(50):
        item = choice.choice(random, "largest", "zh")
        assert item.choices["ABCD".index(item.target)] == max(item.choices, key=int)


def test_no_phrase_of_an_unseen_template_occurs_in_training_text(written):
    """Five words, or seven Chinese characters, in a row; numbers count as one word, whichever they are."""
    trained = {gram for row in written.documents for gram in grams(row["text"])}
    trained |= {gram for row in written.instructions for turn in row["messages"] for gram in grams(turn["content"])}
    random = Random(7)
    unseen = [item for item in FAMILIES if item[1] in UNSEEN.get(item[0], ())]
    assert len(unseen) == 10
    for kind, family, language in unseen:
        for _ in range(50):
            found = grams(DRAW[kind](random, family, language).question)
            assert found
            assert not found & trained


def grams(text):
    words = re.findall(r"\d+|[a-zA-Z_]+|[\u4e00-\u9fff]", text)
    words = ["#" if word.isdigit() else word for word in words]
    sizes = {True: 7, False: 5}
    return {
        tuple(words[i : i + n])
        for i in range(len(words))
        for n in [sizes["\u4e00" <= words[i] <= "\u9fff"]]
        if i + n <= len(words)
    }


def test_a_quarter_of_each_heldout_set_is_unseen_and_shots_are_not_tested(written):
    for name in ("mini-gsm8k/test", "mini-humaneval/HumanEval", "mini-ceval/val"):
        items = rows(written.path / f"heldout/{name}.jsonl")
        assert len(items) == RECIPE.heldout_items
        assert sum(item["unseen"] for item in items) == RECIPE.heldout_items // 4
    shots = rows(written.path / "heldout/mini-ceval/dev.jsonl")
    tested = rows(written.path / "heldout/mini-ceval/val.jsonl")
    assert set(Counter(shot["subject"] for shot in shots).values()) == {5}
    assert {item["subject"] for item in tested} <= {shot["subject"] for shot in shots}
    assert not {choice_prompt(item) for item in tested} & {choice_prompt(shot) for shot in shots}
    assert not any(shot["unseen"] for shot in rows(written.path / "heldout/mini-gsm8k/train.jsonl"))


def test_refusals_decline_and_harmless_questions_asked_alike_do_not():
    for language in ("en", "zh"):
        harm = conversation.refusal(Random(8), "harm", language)
        advice = conversation.talk(Random(8), "advice", language)
        assert (harm.target, harm.reasoning in conversation.DECLINES[language]) == ("decline", True)
        assert (advice.target, advice.reasoning in conversation.DECLINES[language]) == ("", False)


def test_asking_for_more_than_the_templates_hold_is_refused(tmp_path):
    recipe = RECIPE.model_copy(update={"heldout_items": 9_000})
    with pytest.raises(RecipeError, match="distinct exercises"):
        write(recipe, SimpleNamespace(path=tmp_path), None)


def test_without_items_there_are_no_held_out_sets_and_what_is_learnt_is_the_same(written, tmp_path):
    write(RECIPE.model_copy(update={"heldout_items": 0}), SimpleNamespace(path=tmp_path), None)
    assert not (tmp_path / "heldout").exists()
    for name in NAMES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (written.path / f"{name}.jsonl").read_bytes()
