"""Talk to a model in the terminal: the same rendering and the same engine as everywhere else."""

from __future__ import annotations

from dataclasses import replace

from alignment import chat, hardware, terminal
from alignment.errors import ModelError


def converse(model: str, *, temperature: float, max_new_tokens: int, profile: str) -> None:
    """Read a line, answer it, remember both, until an empty line."""
    machine = hardware.prepare(profile)
    from alignment.generate import engine

    console = terminal.console()
    speaker = engine.load(model, machine)
    chat.check_template(speaker.tokenizer, None, model)
    settings = engine.Settings(max_new_tokens=max_new_tokens, temperature=temperature, top_p=0.95 if temperature else 1.0)
    messages: list[dict[str, str]] = []
    console.print(f"{model}. An empty line ends.", markup=False)
    while said := _line(console):
        messages.append({"role": "user", "content": said})
        prompt = chat.encode(speaker.tokenizer, messages, answer=False).input_ids
        room = max(1, speaker.context - len(prompt))  # a small model's context may be shorter than the longest answer
        try:
            answer = speaker.generate([prompt], replace(settings, max_new_tokens=min(max_new_tokens, room)))[0][0]
        except ModelError as error:
            console.print(f"{error} The conversation begins anew.", markup=False)
            messages = []
            continue
        console.print("[bold]model[/bold] ", end="")
        console.print(answer.text.strip() + ("" if answer.finish == "stop" else " ..."), markup=False)
        messages.append({"role": "assistant", "content": answer.text.strip()})


def _line(console: object) -> str:
    try:
        return str(console.input("[bold]you[/bold]   ")).strip()  # type: ignore[attr-defined]
    except EOFError:
        return ""
