"""Questions with lettered options: C-Eval, and the quickstart's mini-ceval in the same format.

Protocol for base models: DeepSeek LLM, appendix A.6: a header that names the subject, five worked questions of the
dev split, and the log-probabilities of the letters after the answer cue; the likeliest letter counts. Chat models are
asked 0-shot and write their answer; a letter that cannot be read is `unread`. C-Eval's score is the mean over its 52
subjects, as in the paper, with the mean over items beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.verify.problem import Problem
from eval.task import Answer, Form, Item, Mark, group, rows, verified

LETTERS = "ABCD"
CUES = {"zh": ("答案：", ""), "en": ("Answer:", " ")}  # what stands before the letter, and before it the space


@dataclass(frozen=True)
class Choices:
    """A set of questions with the options A to D."""

    name: str
    header: str  # {subject} filled in
    subjects: dict[str, str]  # how the header names them
    instruction: str  # after the options, for chat models
    shots: int
    macro: bool
    max_new_tokens: int
    temperature: float = 0.0

    def items(self, root: Path) -> list[Item]:
        """Read dev (for the worked questions) and val."""
        fields = ("question", *LETTERS, "answer")
        dev = rows(root, f"{self.name}/dev.jsonl", fields)
        return [
            Item(
                id=f"{self.name}/{row.get('subject', '')}/{row.get('id', number)}",
                problem=Problem(f"{self.name}/{number}", _question(row), "choice", row["answer"].strip()),
                group=group(row, str(row.get("subject", "all"))),
                language=_language(row),
                header=self.header.format(subject=self.subjects.get(row.get("subject", ""), row.get("subject", ""))),
                shots=tuple(_question(shot) + _answer(shot) for shot in _nearest(dev, row, self.shots)),
            )
            for number, row in enumerate(rows(root, f"{self.name}/val.jsonl", fields))
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Header, worked questions, the question and the cue; or header, question and instruction."""
        question = item.problem.prompt
        if form == "chat":
            return "\n\n".join(filter(None, [item.header, question])) + self.instruction
        cue = "\n" + CUES[item.language][0]
        return "\n\n".join(filter(None, [item.header, *item.shots[:shots], question + cue]))

    def options(self, item: Item, form: Form) -> tuple[str, ...]:
        """The letters, for a base model."""
        return tuple(CUES[item.language][1] + letter for letter in LETTERS) if form == "completion" else ()

    def stop(self, form: Form) -> tuple[str, ...]:  # noqa: ARG002
        """A chat model ends by itself."""
        return ()

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Take the likeliest letters, or read those that were written."""
        scored = [answer for answer in answers if not isinstance(answer, str)]
        if not scored:
            return verified(items, answers)
        read = [max(LETTERS, key=lambda letter: answer[letter]) for answer in scored]
        return [Mark(letter, letter == item.problem.target) for item, letter in zip(items, read, strict=True)]


def _question(row: dict[str, Any]) -> str:
    return "\n".join([row["question"].strip(), *(f"{letter}. {row[letter]}" for letter in LETTERS)])


def _answer(row: dict[str, Any]) -> str:
    cue, space = CUES[_language(row)]
    return f"\n{cue}{space}{row['answer'].strip()}"


def _nearest(dev: list[dict[str, Any]], row: dict[str, Any], wanted: int) -> list[dict[str, Any]]:
    """Worked questions of the same subject; where there are none (a template never trained), some of each other."""
    same = [shot for shot in dev if shot.get("subject") == row.get("subject")]
    pool = same or [shot for shot in dev if _language(shot) == _language(row)]
    return [pool[i * len(pool) // wanted] for i in range(min(wanted, len(pool)))]


def _language(row: dict[str, Any]) -> str:
    return str(row.get("language", "zh"))


CEVAL_SUBJECTS = {
    "computer_network": "计算机网络", "operating_system": "操作系统", "computer_architecture": "计算机组成",
    "college_programming": "大学编程", "college_physics": "大学物理", "college_chemistry": "大学化学",
    "advanced_mathematics": "高等数学", "probability_and_statistics": "概率统计", "discrete_mathematics": "离散数学",
    "electrical_engineer": "注册电气工程师", "metrology_engineer": "注册计量师",
    "high_school_mathematics": "高中数学", "high_school_physics": "高中物理", "high_school_chemistry": "高中化学",
    "high_school_biology": "高中生物", "middle_school_mathematics": "初中数学", "middle_school_biology": "初中生物",
    "middle_school_physics": "初中物理", "middle_school_chemistry": "初中化学", "veterinary_medicine": "兽医学",
    "college_economics": "大学经济学", "business_administration": "工商管理", "marxism": "马克思主义基本原理",
    "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论", "education_science": "教育学",
    "teacher_qualification": "教师资格", "high_school_politics": "高中政治", "high_school_geography": "高中地理",
    "middle_school_politics": "初中政治", "middle_school_geography": "初中地理",
    "modern_chinese_history": "近代史纲要", "ideological_and_moral_cultivation": "思想道德修养与法律基础",
    "logic": "逻辑学", "law": "法学", "chinese_language_and_literature": "中国语言文学", "art_studies": "艺术学",
    "professional_tour_guide": "导游资格", "legal_professional": "法律职业资格", "high_school_chinese": "高中语文",
    "high_school_history": "高中历史", "middle_school_history": "初中历史", "civil_servant": "公务员",
    "sports_science": "体育学", "plant_protection": "植物保护", "basic_medicine": "基础医学",
    "clinical_medicine": "临床医学", "urban_and_rural_planner": "注册城乡规划师", "accountant": "注册会计师",
    "fire_engineer": "注册消防工程师", "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "tax_accountant": "税务师", "physician": "医师资格",
}  # fmt: skip

TASKS = {
    "ceval": Choices(
        name="ceval",
        header="以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。",
        subjects=CEVAL_SUBJECTS,
        instruction="\n请直接回答正确选项的字母。",
        shots=5,
        macro=True,
        max_new_tokens=32,
    ),
    "mini-ceval": Choices(
        name="mini-ceval", header="", subjects={}, instruction="", shots=5, macro=False, max_new_tokens=16
    ),
}
