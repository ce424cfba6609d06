"""Tokens a pass of answers that follow JSON schemas of eight fields, by a fixed budget of rows.

    python bench/structure.py                 # the embedded model, greedy, 8 rows
    python bench/structure.py --rows 16 --temperature 0.8 --show

Every schema has four questions. Each is a first answer once, with everything forgotten that drafts have learned; then
all are asked in a row, and those behind the first are the later ones. Counts do not depend on the machine.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation, embedded_model
from maskprobe.grammars.grammar import Grammar

TEXT: dict[str, Any] = {"type": "string", "maxLength": 40}
WORDS: dict[str, Any] = {"type": "array", "items": {"type": "string", "maxLength": 24}, "maxItems": 4}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 9999}
FLAG: dict[str, Any] = {"type": "boolean"}


def schema(**fields: dict[str, Any]) -> dict[str, Any]:
    """An object with all of these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


class Case(NamedTuple):
    """A schema and what is asked by it."""

    schema: dict[str, Any]
    questions: list[str]


CASES = {
    "person": Case(
        schema(
            first_name=TEXT,
            last_name=TEXT,
            age=WHOLE,
            email_address=TEXT,
            occupation=TEXT,
            is_married=FLAG,
            home_city=TEXT,
            favorite_foods=WORDS,
        ),
        [
            "Invent a person who lives in Lisbon.",
            "Invent a farmer.",
            "Extract the person: 'My name is Ada Brown, I am 41 and a nurse from Leeds. I love rice, plums and tea. My "
            "husband and I read my mail at ada@brown.example.'",
            "Describe a typical teacher.",
        ],
    ),
    "ticket": Case(
        schema(
            ticket_id=WHOLE,
            title=TEXT,
            description=TEXT,
            priority={"enum": ["low", "medium", "high"]},
            status={"enum": ["open", "in_progress", "closed"]},
            assigned_to=TEXT,
            labels=WORDS,
            needs_reply=FLAG,
        ),
        [
            "The printer on the second floor prints blank pages. Make a ticket.",
            "I cannot log in since yesterday. Make a ticket.",
            "Make a ticket for a slow web page.",
            "The heating in room 12 is broken, Tom should look at it today. Make a ticket.",
        ],
    ),
    "product": Case(
        schema(
            product_name=TEXT,
            manufacturer=TEXT,
            category=TEXT,
            price={"type": "number", "minimum": 0, "maximum": 9999},
            currency={"enum": ["EUR", "USD", "GBP"]},
            stock_quantity=WHOLE,
            in_stock=FLAG,
            short_description=TEXT,
        ),
        [
            "Invent a kitchen product for our shop.",
            "List a pair of running shoes for our shop.",
            "Extract the product: 'The Lumo desk lamp by Brightly costs 39.90 EUR. We have 120 of them.'",
            "Invent a toy for our shop.",
        ],
    ),
    "event": Case(
        schema(
            event_name=TEXT,
            start_date={"type": "string", "format": "date"},
            end_date={"type": "string", "format": "date"},
            location={"type": "object", "properties": {"street": TEXT, "city": TEXT}, "required": ["street", "city"]},
            organizer=TEXT,
            max_participants=WHOLE,
            is_public=FLAG,
            topics=WORDS,
        ),
        [
            "Plan a conference about bees.",
            "Plan a chess tournament in Vienna.",
            "Extract the event: 'On 2025-05-03 and 2025-05-04 the Bird Club meets at 5 Lake Road in Bern to talk about "
            "owls and storks. Everybody may come, up to 60 people.'",
            "Plan a workshop for young painters.",
        ],
    ),
}


def count(ask: Callable[[str, Any], Counter[str]], forget: Callable[[], None], case: Case) -> dict[str, Counter[str]]:
    """Tokens, passes and drafts of first answers and of later ones."""
    counts = {"first": Counter[str](), "later": Counter[str]()}
    for question in case.questions[1:]:
        forget()
        counts["first"] += ask(question, case.schema)
    forget()
    counts["first"] += ask(case.questions[0], case.schema)
    for question in case.questions[1:]:
        counts["later"] += ask(question, case.schema)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="most rows of a pass")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--show", action="store_true", help="print the answers")
    arguments = parser.parse_args()
    console = Console(width=100)
    table = Table("schema", "first answer", "later answers", "drafts accepted, of", title="tokens a pass")
    total = {"first": Counter[str](), "later": Counter[str]()}
    speculation = Speculation(budget=arguments.rows, probe="table-mean")
    with MaskProbeLlama(embedded_model(), n_ctx=2048, n_threads=1, speculation=speculation) as llm:

        def ask(question: str, form: Any) -> Counter[str]:
            prompt = llm.apply_chat_template([{"role": "user", "content": f"{question} Answer in JSON."}])
            grammar = Grammar.from_schema(form)
            out = llm.generate(prompt, max_tokens=400, temperature=arguments.temperature, seed=1, grammar=grammar)
            if arguments.show:
                console.print(out.text, markup=False)
            stats = out.stats
            # The prompt's own pass has brought the first token.
            tokens, passes, drafted = stats.predicted_n - 1, stats.passes, stats.draft_n
            return Counter(tokens=tokens, passes=passes, drafted=drafted, accepted=stats.draft_n_accepted)

        for name, case in CASES.items():
            counts = count(ask, lambda: llm.reset(learned=True), case)
            table.add_row(name, *_columns(counts))
            for key, value in counts.items():
                total[key] += value
    table.add_row("all", *_columns(total))
    console.print(table)


def _columns(counts: dict[str, Counter[str]]) -> list[str]:
    both = counts["first"] + counts["later"]
    rates = [f"{counts[key]['tokens'] / counts[key]['passes']:.2f}" for key in ("first", "later")]
    return [*rates, f"{both['accepted']}, {both['drafted']}"]


if __name__ == "__main__":
    main()
